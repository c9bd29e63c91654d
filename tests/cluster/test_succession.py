"""A known node's own change: believed by its token, without a look at its Node; nobody else's is.

Where a test says that somebody is not asked about, the Node says otherwise: whoever had looked
would not believe it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest

from daemon.config import SUCCESSION
from daemon.sources.cache import load
from daemon.sources.kubernetes.chain import LENGTH, STEPS_MAX, parse_token, show_token, steps
from daemon.sources.kubernetes.chain import token_of as long_token_of
from daemon.sources.kubernetes.events import BRACKETS_MAX
from tests.cluster.apiserver import SPACE, ApiServer, network
from tests.cluster.conftest import MakeFollower, facts
from tests.cluster.follower import Follower, eventually
from tests.cluster.rest import MERGE, Object, place_of
from tests.cluster.wire import Wire

SEED, FORGED = b"a seed of the tests", b"another one"
SHORT = 64
OTHER, EVIL = ["198.51.100.2", "2001:db8:ffff::2"], ["198.51.100.66"]
UID = "4d0d7a5c-2f6d-4e3e-8c86-3a0c61e1b0a2"


def token_of(index: int, seed: bytes = SEED) -> str:
    return show_token(long_token_of(seed, index, SHORT))


def say(
    api: ApiServer, number: int, token: str = "", *, addresses: Sequence[str] = (),
    cidrs: Sequence[str] = (), uid: str = UID,
) -> None:  # fmt: skip
    """The object of a node, as its daemon would write it, or somebody else."""
    name, (usual, homes) = f"n{number}", facts(number)
    made = network(name, cidrs or usual, addresses or homes)
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    made["metadata"]["ownerReferences"] = [owner]
    if token:
        made["spec"]["succession"] = token
    api.admin.apply(made, "podwired").expect(200, 201)


def looks(api: ApiServer, name: str = "n2") -> int:
    """How often daemons read a Node."""
    return sum(r.uri.endswith(f"/nodes/{name}") for r in api.requests("podwired"))


def addresses(one: Follower, name: str = "n2") -> list[str]:
    node = one.nodes().get(name)
    return list(map(str, node.addresses)) if node else []


def settle(api: ApiServer, one: Follower, number: int) -> None:
    """Wait until all that came before was heard."""
    api.add_node(f"n{number}", *facts(number))
    api.put_network(f"n{number}", *facts(number))
    eventually(lambda: f"n{number}" in one.nodes() or one.told())


def await_believed(one: Follower, wanted: Sequence[str]) -> None:
    eventually(lambda: addresses(one) == list(wanted) or one.told())


def await_denied(api: ApiServer, one: Follower, before: int) -> None:
    """The Node was looked at, and what was claimed is not believed."""
    eventually(lambda: looks(api) > before or one.told())
    eventually(lambda: "NodeNetwork n2 is left out" in one.log.text or one.told())
    assert addresses(one) == facts(2)[1]


@pytest.fixture
def one(api: ApiServer, follow: MakeFollower) -> Follower:
    """A watcher that knows n2, whose newest token is the fourth."""
    api.add_node("n2", *facts(2))
    say(api, 2, token_of(3))
    made = follow("n1", 1).start()
    await_believed(made, facts(2)[1])
    eventually(lambda: (api.network("n1") is not None and made.fault == "") or made.told())
    return made


def test_own_changes_are_believed_without_a_look(api: ApiServer, one: Follower) -> None:
    for index in range(4, 8):
        moved = [f"198.51.100.{index}"]
        say(api, 2, token_of(index), addresses=moved)
        await_believed(one, moved)
    settle(api, one, 5)
    assert looks(api) == 0


def test_a_token_that_was_seen_before_proves_nothing(api: ApiServer, one: Follower) -> None:
    say(api, 2, token_of(3), addresses=EVIL)
    await_denied(api, one, 0)


@pytest.mark.parametrize("token", ["", token_of(5, FORGED), token_of(2), "A" * 22])
def test_a_token_of_somebody_else_proves_nothing(api: ApiServer, one: Follower, token: str) -> None:
    say(api, 2, token, addresses=EVIL)
    await_denied(api, one, 0)
    # Whoever says such things is asked about from then on.
    before = looks(api)
    say(api, 2, token_of(4), addresses=OTHER)
    await_denied(api, one, before)


def test_tokens_that_were_never_published_are_passed_over(api: ApiServer, one: Follower) -> None:
    say(api, 2, token_of(3 + STEPS_MAX), addresses=OTHER)
    await_believed(one, OTHER)
    assert looks(api) == 0
    say(api, 2, token_of(3 + STEPS_MAX + STEPS_MAX + 1))
    eventually(lambda: looks(api) == 1 or one.told())
    await_believed(one, facts(2)[1])


def test_the_same_again_keeps_the_place(api: ApiServer, one: Follower) -> None:
    """Put right after somebody else's change, with another token."""
    say(api, 2, token_of(4))
    settle(api, one, 5)
    say(api, 2, token_of(4), addresses=EVIL)
    await_denied(api, one, 0)


@pytest.mark.parametrize("change", ["owner", "prefix", "address"])
def test_what_else_must_be_asked_is_asked(api: ApiServer, one: Follower, change: str) -> None:
    settle(api, one, 5)
    if change == "owner":
        say(api, 2, token_of(4), addresses=EVIL, uid="b9f2b7de-0000-4000-8000-000000000000")
    elif change == "prefix":
        say(api, 2, token_of(4), cidrs=["10.244.77.0/24"])
    else:
        say(api, 2, token_of(4), addresses=facts(5)[1])
    await_denied(api, one, 0)
    assert list(map(str, one.nodes()["n2"].pod_cidrs)) == facts(2)[0]
    assert addresses(one, "n5") == facts(5)[1]


# -- objects that come and go


def test_who_comes_back_is_asked_about(api: ApiServer, one: Follower) -> None:
    """Whoever made it unreadable before that knows its next token, too."""
    api.remove("NodeNetwork", "n2", SPACE)
    eventually(lambda: "n2" not in one.nodes() or one.told())
    say(api, 2, token_of(4), addresses=EVIL)
    eventually(lambda: looks(api) > 0 or one.told())
    eventually(lambda: "NodeNetwork n2 is left out" in one.log.text or one.told())
    await_believed(one, facts(2)[1])


def test_who_comes_back_with_what_others_knew_is_asked(api: ApiServer, one: Follower) -> None:
    api.remove("NodeNetwork", "n2", SPACE)
    say(api, 2, token_of(3), addresses=EVIL)
    eventually(lambda: looks(api) > 0 or one.told())
    eventually(lambda: "NodeNetwork n2 is left out" in one.log.text or one.told())
    await_believed(one, facts(2)[1])


def test_a_planted_token_dies_with_the_nodes_own_word(api: ApiServer, one: Follower) -> None:
    api.add_node("n6", *facts(6))
    say(api, 6, token_of(0, FORGED))
    say(api, 6, token_of(9))
    settle(api, one, 5)
    say(api, 6, token_of(1, FORGED), addresses=EVIL)
    eventually(lambda: looks(api, "n6") > 0 or one.told())
    settle(api, one, 7)
    assert addresses(one, "n6") == facts(6)[1]


def test_an_object_of_old_is_asked_about(api: ApiServer, one: Follower) -> None:
    """No token at first sight, and none is taken later: it may be anybody's."""
    api.add_node("n6", *facts(6))
    say(api, 6)
    settle(api, one, 5)
    assert addresses(one, "n6") == facts(6)[1]
    say(api, 6, token_of(0))
    say(api, 6, token_of(1), addresses=EVIL)
    eventually(lambda: looks(api, "n6") > 0 or one.told())
    settle(api, one, 7)
    assert addresses(one, "n6") == facts(6)[1]


# -- gaps


def miss(api: ApiServer, one: Follower, wire: Wire) -> None:
    """Let the watcher's place in the watch be too old when it comes back."""
    one.stop()
    wire.refuse()
    api.restart()


def test_a_list_proves_nothing(api: ApiServer, one: Follower, wire: Wire) -> None:
    """Who lists sees the last of several changes: its token may have been another's before."""
    one.stop()
    say(api, 2, token_of(4), addresses=EVIL)
    miss(api, one, wire)
    one.start()
    wire.listen()
    await_denied(api, one, 0)


def test_tokens_of_a_gap_prove_nothing_later(api: ApiServer, one: Follower, wire: Wire) -> None:
    """The node changed and changed back, and whoever saw that writes what it was, then more."""
    one.stop()
    say(api, 2, token_of(4), addresses=OTHER)
    say(api, 2, token_of(3))
    miss(api, one, wire)
    one.start()
    wire.listen()
    settle(api, one, 5)
    assert looks(api) == 0
    say(api, 2, token_of(4), addresses=EVIL)
    await_denied(api, one, 0)


def test_who_did_not_change_in_a_gap_is_still_known(
    api: ApiServer, one: Follower, wire: Wire
) -> None:
    miss(api, one, wire)
    one.start()
    wire.listen()
    settle(api, one, 5)
    say(api, 2, token_of(4), addresses=OTHER)
    await_believed(one, OTHER)
    assert looks(api) == 0


def test_a_watcher_that_restarts_hears_what_it_missed_in_its_order(
    api: ApiServer, one: Follower
) -> None:
    one.stop()
    known = load(one.known, one.client().identity)
    assert known is not None
    assert set(known.notes) == {"n2"}
    say(api, 2, token_of(4), addresses=OTHER)
    say(api, 2, token_of(4), addresses=EVIL)
    report(api, "n2", OTHER)
    one.start()
    await_believed(one, OTHER)
    eventually(lambda: looks(api) == 1 or one.told())
    settle(api, one, 5)
    assert addresses(one) == OTHER


def test_a_watcher_that_restarts_believes_what_it_missed(api: ApiServer, one: Follower) -> None:
    one.stop()
    say(api, 2, token_of(4), addresses=OTHER)
    one.start()
    await_believed(one, OTHER)
    say(api, 2, token_of(5))
    await_believed(one, facts(2)[1])
    assert looks(api) == 0


# -- the node itself


def published(api: ApiServer, name: str = "n1") -> Object:
    found: Object = (api.network(name) or {"spec": {}})["spec"]
    return found


def newest(api: ApiServer, name: str = "n1") -> bytes:
    """The token that a node has published."""
    eventually(lambda: "succession" in published(api, name))
    token = parse_token(published(api, name)["succession"])
    assert token is not None
    return token


def await_other(api: ApiServer, one: Follower, token: bytes) -> None:
    """Wait for another token of n1 than that."""
    eventually(lambda: newest(api) != token or one.told())


def report(api: ApiServer, name: str, addresses: Sequence[str]) -> None:
    """Other addresses of a Node, as its kubelet reports them."""
    found = [{"type": "InternalIP", "address": a} for a in addresses]
    path = f"{place_of('Node', '', name)}/status"
    patch = {"status": {"addresses": found}}
    api.admin.ask("PATCH", path, patch, kind=MERGE).expect(200)


def test_a_node_that_moves_costs_the_others_no_look(api: ApiServer, follow: MakeFollower) -> None:
    one, two = follow("n1", 1).start(), follow("n2", 2).start()
    await_believed(one, facts(2)[1])
    eventually(lambda: two.fault == "" or two.told())
    for number in (12, 13):
        two.stop()
        before = looks(api)
        report(api, "n2", facts(number)[1])
        two.start()
        await_believed(one, facts(number)[1])
        assert looks(api) == before + 1  # its own


def test_a_node_that_restarts_keeps_its_token(api: ApiServer, follow: MakeFollower) -> None:
    one = follow("n1", 1).start()
    first = newest(api)
    secret = one.folder / SUCCESSION
    assert secret.stat().st_mode & 0o777 == 0o600
    version = (api.network("n1") or {})["metadata"]["resourceVersion"]
    for known in (True, False):
        one.stop()
        if not known:
            one.known.unlink()
        one.start()
        settle(api, one, 5 + known)
        eventually(lambda: one.fault == "" or one.told())
    assert (api.network("n1") or {})["metadata"]["resourceVersion"] == version
    one.stop()
    report(api, "n1", facts(12)[1])
    one.start()
    eventually(lambda: published(api)["addresses"] == facts(12)[1] or one.told())
    assert steps(first, newest(api)) == 1
    seed = json.loads(secret.read_text())["seed"]
    assert seed not in one.log.text + one.known.read_text() + json.dumps(api.network("n1"))


@pytest.mark.parametrize("who", ["deleted", "changed", "token", "owner"])
def test_what_was_put_right_has_the_next_token(
    api: ApiServer, follow: MakeFollower, who: str
) -> None:
    one = follow("n1", 1).start()
    first = newest(api)
    spec = published(api)
    uid = (api.network("n1") or {})["metadata"]["uid"]
    path = place_of("NodeNetwork", SPACE, "n1")
    if who == "deleted":
        api.remove("NodeNetwork", "n1", SPACE)
    else:
        patches: dict[str, Object] = {
            "changed": {"spec": {"addresses": EVIL}},
            "token": {"spec": {"succession": token_of(1, FORGED)}},
            "owner": {"metadata": {"ownerReferences": None}},
        }
        api.admin.ask("PATCH", path, patches[who], kind=MERGE).expect(200)
    eventually(lambda: published(api).get("addresses") == spec["addresses"] or one.told())
    eventually(lambda: steps(first, newest(api)) == 1 or one.told())
    time.sleep(1)
    assert steps(first, newest(api)) == 1
    assert ((api.network("n1") or {})["metadata"]["uid"] == uid) == (who != "deleted")


@pytest.mark.parametrize("when", ["watched", "listed"])
def test_an_object_that_nobody_can_read_is_made_anew(
    api: ApiServer, follow: MakeFollower, when: str
) -> None:
    one, two = follow("n1", 1).start(), follow("n2", 2).start()
    await_believed(one, facts(2)[1])
    eventually(lambda: two.fault == "" or two.told())
    if when == "listed":
        two.stop()
        two.known.unlink()
    junk = {"metadata": {"annotations": {"junk": "{" * (BRACKETS_MAX + 1)}}}
    made = {**junk, "spec": {"addresses": EVIL}}
    api.admin.ask("PATCH", place_of("NodeNetwork", SPACE, "n2"), made, kind=MERGE).expect(200)
    if when == "listed":
        two.start()
    eventually(lambda: published(api, "n2").get("addresses") == facts(2)[1] or two.told())
    eventually(lambda: "annotations" not in (api.network("n2") or junk)["metadata"] or two.told())
    eventually(lambda: "addresses" in published(api, "n2") or two.told())
    assert "it is deleted and written again" in two.log.text
    settle(api, one, 5)
    await_believed(one, facts(2)[1])


@pytest.mark.parametrize("loss", ["wiped", "used up", "exposed"])
def test_a_node_that_has_another_secret_is_asked_about(
    api: ApiServer, follow: MakeFollower, loss: str
) -> None:
    one, two = follow("n1", 1).start(), follow("n2", 2).start()
    await_believed(one, facts(2)[1])
    first = newest(api, "n2")
    eventually(lambda: two.fault == "" or two.told())
    two.stop()
    secret = two.folder / SUCCESSION
    if loss == "wiped":
        secret.unlink()
    elif loss == "exposed":
        secret.chmod(0o640)
    else:
        made = json.loads(secret.read_text())
        secret.write_text(json.dumps({**made, "index": LENGTH - 1}))
    before = looks(api)
    report(api, "n2", facts(12)[1])
    two.start()
    await_believed(one, facts(12)[1])
    eventually(lambda: looks(api) == before + 2 or one.told())  # its own, and the other's
    assert steps(first, newest(api, "n2"), LENGTH) is None
    assert secret.stat().st_mode & 0o777 == 0o600
    assert ("could read" in two.log.text) == (loss == "exposed")


@pytest.mark.parametrize("change", ["none", "moved"])
@pytest.mark.parametrize("known", [True, False])
def test_a_node_of_a_backup_begins_another_succession(
    api: ApiServer, follow: MakeFollower, known: bool, change: str
) -> None:
    """Whoever saw what it gave out since then knows what it would give out next."""
    one = follow("n1", 1).start()
    eventually(lambda: (api.network("n1") is not None and one.fault == "") or one.told())
    one.stop()
    files = {path: path.read_bytes() for path in (one.known, one.folder / SUCCESSION)}
    for number in (12, 13, 14):
        before = newest(api)
        report(api, "n1", facts(number)[1])
        one.start()
        await_other(api, one, before)
        eventually(lambda: one.fault == "" or one.told())
        one.stop()
    last = newest(api)
    for path, data in files.items():
        path.write_bytes(data)
    if not known:
        one.known.unlink()
    report(api, "n1", facts(15 if change == "moved" else 1)[1])
    one.start()
    await_other(api, one, last)
    eventually(lambda: "begins another succession" in one.log.text or one.told())
    settle(api, one, 5)
    eventually(lambda: steps(last, newest(api), LENGTH) is None or one.told())
    assert steps(newest(api), last, LENGTH) is None


def test_a_node_without_its_secret_says_so_at_once(api: ApiServer, follow: MakeFollower) -> None:
    """Though all else is as an earlier daemon left it."""
    one = follow("n1", 1).start()
    first = newest(api)
    eventually(lambda: one.fault == "" or one.told())
    one.stop()
    (one.folder / SUCCESSION).unlink()
    one.start()
    eventually(lambda: newest(api) != first or one.told())
    assert "somebody else" not in one.log.text


def test_a_definition_of_before_there_were_tokens_will_do(
    api: ApiServer, follow: MakeFollower
) -> None:
    path = place_of("CustomResourceDefinition", "", "nodenetworks.podwire.dev")
    [version] = api.admin.ask("GET", path).expect(200)["spec"]["versions"]
    old = json.loads(json.dumps(version))
    del old["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["succession"]
    probe = network("probe", *facts(9))
    probe["spec"]["succession"] = token_of(0)

    def knows() -> bool:
        api.admin.apply(probe, "tests")
        return "succession" in published(api, "probe")

    def install(made: Object) -> None:
        api.admin.ask("PATCH", path, {"spec": {"versions": [made]}}, kind=MERGE).expect(200)
        wanted = made is version
        eventually(lambda: knows() == wanted)
        api.remove("NodeNetwork", "probe", SPACE)

    api.admin.apply(probe, "tests")
    api.remove("NodeNetwork", "probe", SPACE)
    install(old)
    try:
        one = follow("n1", 1).start()
        eventually(lambda: published(api).get("addresses") == facts(1)[1] or one.told())
        eventually(lambda: one.fault == "" or one.told())
        settle(api, one, 5)
        assert "succession" not in published(api)
        assert "packaging/kubernetes/crd.yaml" in one.log.text
        assert one.running.news.events < 5
    finally:
        install(version)
    # Whoever plants one of his own does not come far. An API server may go on for a while to send
    # what was defined when the watch began, so that the daemon hears of it by a list.
    one.stop()
    forged = token_of(0, FORGED)
    patch = {"spec": {"succession": forged}}
    api.admin.ask("PATCH", place_of("NodeNetwork", SPACE, "n1"), patch, kind=MERGE).expect(200)
    one.start()
    eventually(lambda: published(api).get("succession", forged) != forged or one.told())
    assert steps(newest(api), long_token_of(FORGED, 0, SHORT), SHORT) is None
    assert published(api)["addresses"] == facts(1)[1]


def test_another_node_beside_the_own_one_is_taken_out(api: ApiServer, follow: MakeFollower) -> None:
    """Others would not know whose the object is, and it would outlive its Node."""
    one = follow("n1", 1).start()
    first = newest(api)
    eventually(lambda: one.fault == "" or one.told())
    right = (api.network("n1") or {})["metadata"]["ownerReferences"]
    both = [*right, {**right[0], "uid": "b9f2b7de-0000-4000-8000-000000000000"}]
    patch = {"metadata": {"ownerReferences": both}}
    api.admin.ask("PATCH", place_of("NodeNetwork", SPACE, "n1"), patch, kind=MERGE).expect(200)

    def owners() -> object:
        return (api.network("n1") or {"metadata": {}})["metadata"].get("ownerReferences")

    eventually(lambda: owners() == right or one.told())
    settle(api, one, 5)
    assert owners() == right
    assert steps(first, newest(api)) in (1, 2, 3)
