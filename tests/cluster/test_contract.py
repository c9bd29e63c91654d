"""What a Kubernetes source owes the daemon, whichever API server is on the other side."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Callable, Sequence

import pytest

from daemon.sources.cache import load
from tests.cluster.apiserver import (
    KUBEADM,
    POD_SUBNET,
    SPACE,
    SYSTEM,
    ApiServer,
    Request,
    kubeadm_config,
    network,
)
from tests.cluster.conftest import MakeFollower, facts
from tests.cluster.follower import Follower, eventually
from tests.cluster.rest import MERGE, place_of
from tests.cluster.wire import Wire

CIDRS = {f"n{number}": facts(number)[0] for number in range(1, 20)}


def put(api: ApiServer, *numbers: int) -> None:
    """Other nodes: their Node, and their object as their own daemons would write it."""
    for number in numbers:
        api.add_node(f"n{number}", *facts(number))
        api.put_network(f"n{number}", *facts(number), manager="podwired")


def others(*numbers: int) -> dict[str, list[str]]:
    return {f"n{number}": CIDRS[f"n{number}"] for number in numbers}


def published(api: ApiServer, name: str = "n1") -> object:
    """What a node's object says."""
    found = api.network(name)
    return found and found["spec"]


def reads(api: ApiServer, name: str) -> int:
    """How often daemons read a Node."""
    return sum(r.uri.endswith(f"/nodes/{name}") for r in api.requests("podwired"))


def report(api: ApiServer, name: str, addresses: Sequence[str]) -> None:
    """Other addresses of a Node, as its kubelet reports them."""
    found = [{"type": "InternalIP", "address": a} for a in addresses]
    path, patch = f"{place_of('Node', '', name)}/status", {"status": {"addresses": found}}
    api.admin.ask("PATCH", path, patch, kind=MERGE).expect(200)


def wanted(number: int) -> dict[str, list[str]]:
    cidrs, addresses = facts(number)
    return {"addresses": addresses, "podCIDRs": cidrs}


def asked(api: ApiServer, since: int = 0) -> Callable[[str], list[Request]]:
    """Requests of daemons after so many, by verb and what is in their URI."""
    found = api.requests("podwired")[since:]
    # A list of one item asks what time it is.
    ours = [r for r in found if "/nodenetworks" in r.uri and "limit=1" not in r.uri]
    return lambda verb: [r for r in ours if r.verb == verb]


# -- publishing


def test_a_node_publishes_itself_once(api: ApiServer, follow: MakeFollower) -> None:
    one = follow("n1", 1).start()
    one.await_routes({})
    eventually(lambda: published(api) == wanted(1) or one.describe())
    made = api.network("n1")
    node = api.admin.ask("GET", place_of("Node", "", "n1")).expect(200)
    assert made is not None
    [owner] = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Node", "n1")
    assert owner["uid"] == node["metadata"]["uid"]
    [entry] = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("podwired", "Apply")
    own = one.nodes()["n1"]
    assert list(map(str, own.pod_cidrs)) == CIDRS["n1"]
    assert list(map(str, own.addresses)) == facts(1)[1]


def test_nothing_is_written_again_without_a_change(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    # The request is noted after the object is there.
    eventually(lambda: "this node is published" in one.log.text or one.describe())
    version = (api.network("n1") or {})["metadata"]["resourceVersion"]
    before = len(api.requests("podwired"))
    for _ in range(2):
        one.stop()
        one.start().await_routes(others(2))
    wire.cut()
    put(api, 3)
    one.await_routes(others(2, 3))
    assert (api.network("n1") or {})["metadata"]["resourceVersion"] == version
    assert asked(api, before)("patch") == []


def test_pod_cidrs_may_come_late(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    api.add_node("n1", [], facts(1)[1])
    one = follow("n1").start()
    eventually(lambda: one.routes() == others(2) or one.describe())
    assert published(api) is None
    api.assign("n1", CIDRS["n1"])
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.await_routes(others(2))
    eventually(lambda: "n1" in one.nodes() or one.describe())


def test_a_node_that_joins_late_is_no_crash(api: ApiServer, follow: MakeFollower) -> None:
    one = follow("n1")
    one.rotate(api.issue("n1"))
    one.start()
    time.sleep(1)
    put(api, 2)
    eventually(lambda: one.routes() == others(2) or one.describe())
    api.add_node("n1", *facts(1))
    eventually(lambda: published(api) == wanted(1) or one.describe())


def test_another_addresses_are_published(api: ApiServer, follow: MakeFollower) -> None:
    """A Node that was made anew, with other pod CIDRs: what was published follows."""
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.stop()
    api.remove("Node", "n1")
    api.add_node("n1", CIDRS["n9"], facts(9)[1])
    one.rotate()
    one.start()
    eventually(lambda: published(api) == wanted(9) or one.describe())


def test_another_address_of_the_own_node_is_published_at_once(
    api: ApiServer, follow: MakeFollower
) -> None:
    one, two = follow("n1", 1).start(), follow("n2", 2).start()
    eventually(lambda: addresses(two, "n1") == facts(1)[1] or two.describe())
    moved = ["192.0.2.1", "fd00:db8::1"]
    report(api, "n1", moved)
    eventually(lambda: addresses(two, "n1") == moved or two.describe())
    eventually(lambda: addresses(one, "n1") == moved or one.describe())


def test_pod_cidrs_that_are_corrected_are_published_at_once(
    api: ApiServer, follow: MakeFollower
) -> None:
    """Those of a Node never change: it is made again."""
    api.add_node("n1", ["10.99.1.0/24"], facts(1)[1])
    one = follow("n1").start()
    one.await_fault("Node n1 its pod CIDR 10.99.1.0/24 is outside of clusterCIDRs")
    api.remove("Node", "n1")
    api.add_node("n1", *facts(1))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.await_routes({})


@pytest.mark.parametrize("restart", [False, True])
def test_a_node_that_is_made_anew_is_published_anew(
    api: ApiServer, follow: MakeFollower, restart: bool
) -> None:
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())
    if restart:
        eventually(lambda: "n1" in one.nodes() or one.describe())
        one.stop()
        one.start()
        eventually(lambda: one.running.activity.last_received > 0 or one.describe())
    api.remove("Node", "n1")
    api.remove("NodeNetwork", "n1", SPACE)
    one.await_fault("has no Node n1")
    node = api.add_node("n1", CIDRS["n8"], facts(8)[1])
    one.rotate()
    eventually(lambda: published(api) == wanted(8) or one.describe())
    made = api.network("n1")
    assert made is not None
    assert made["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def test_leaving_withdraws_the_object(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.stop()
    assert any("n1" in words for words in one.client().leave())
    assert published(api) is None
    assert published(api, "n2") == wanted(2)
    assert [*one.client().leave()] == []


# -- following


def test_others_come_change_and_go(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    before = one.nodes()
    put(api, 4)
    one.await_routes(others(2, 3, 4))
    after = one.nodes()
    assert all(after[name] is before[name] for name in before)  # the same objects
    api.remove("Node", "n3")
    api.add_node("n3", CIDRS["n8"], facts(8)[1])
    api.put_network("n3", CIDRS["n8"], facts(8)[1])
    one.await_routes({**others(2, 4), "n3": CIDRS["n8"]})
    api.remove("NodeNetwork", "n2", SPACE)
    api.remove("Node", "n2")
    one.await_routes({**others(4), "n3": CIDRS["n8"]})
    assert one.running.activity.events >= 3  # of n4, n3, n2; its own may be in the list


def test_no_node_is_watched_but_the_own_one(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one, two = follow("n1", 1).start(), follow("n3", 3).start()
    one.await_routes(others(2, 3))
    two.await_routes(others(1, 2))
    found = api.requests("podwired")
    own = [(r.verb, r.uri) for r in found if "/nodes" in r.uri.partition("?")[0]]
    assert {verb for verb, _ in own} == {"list", "watch"}
    assert all(re.search(r"fieldSelector=metadata.name(=|%3D)n[13](&|$)", uri) for _, uri in own)
    assert {r.code for r in found} <= {200, 201}
    lists = asked(api)("list")
    assert all("resourceVersion=0" in r.uri for r in lists)
    assert len(lists) == 2


def test_quiet_means_quiet(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    events, before = await_quiet(api, one)
    received = one.running.activity.bytes
    for _ in range(40):  # what a kubelet does to its Node
        heartbeat = {"metadata": {"annotations": {"beat": str(time.monotonic())}}}
        path = place_of("Node", "", "n2")
        kind = "application/merge-patch+json"
        api.admin.ask("PATCH", path, heartbeat, kind=kind).expect(200)
    time.sleep(3)
    assert one.running.poll() is None
    assert one.running.activity.events == events
    assert one.running.activity.bytes < received + 4000  # bookmarks, and no heartbeat
    assert len(api.requests("podwired")) == before


def await_quiet(api: ApiServer, one: Follower) -> tuple[int, int]:
    """Wait until a second brings nothing new; how many events and requests there were."""
    found = -1, -1
    while True:
        time.sleep(1)
        one.poll()
        before, found = found, (one.running.activity.events, len(api.requests("podwired")))
        if found == before:
            return found


def test_bookmarks_move_the_position(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.stop()
    first = position(one)
    one.start().await_routes(others(2))
    eventually(lambda: one.running.activity.last_received > 0 or one.describe())
    for number in range(30):
        api.add_node(f"other{number}", [], [])
    heard, events = one.running.activity.last_received, one.running.activity.events
    # The real one says so each minute, the stand-in each two seconds.
    eventually(lambda: one.running.activity.last_received > heard + 1 or one.describe(), 150)
    assert one.running.activity.events == events
    one.stop()
    assert position(one) > first + 10


def position(one: Follower) -> int:
    """Where it would go on."""
    known = load(one.known, one.client().identity)
    assert known is not None
    return int(json.loads(known.position)[0])


def test_a_slow_reader_loses_nothing(api: ApiServer, follow: MakeFollower, wire: Wire) -> None:
    one = follow("n1", 1).start()
    one.await_routes({})
    wire.throttle(20_000)
    for number in range(400):
        name = f"m{number % 40}"
        cidr = f"10.244.{100 + number % 40}.0/24"
        api.put_network(name, [cidr], [f"198.51.100.{1 + number % 40}"], f"writer{number // 40}")
    wire.let_flow()
    one.await_routes({f"m{n}": [f"10.244.{100 + n}.0/24"] for n in sorted(range(40), key=str)})


# -- outages


def test_an_outage_keeps_what_is_known(api: ApiServer, follow: MakeFollower, wire: Wire) -> None:
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    before = len(api.requests("podwired"))
    wire.refuse()
    one.await_fault("since 20")
    since = one.fault
    one.poll()  # what came before the outage
    put(api, 4)
    api.remove("NodeNetwork", "n2", SPACE)
    time.sleep(3)
    assert one.running.poll() is None
    assert one.routes() == others(2, 3)
    assert one.fault.split("since")[1] == since.split("since")[1]
    wire.listen()
    one.await_routes(others(3, 4))
    assert asked(api, before)("list") == []  # it went on where it was


def test_a_silent_api_is_noticed_by_who_asks(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    put(api, 2)
    one = follow("n1", 1)
    one.rotate()
    wire.hush()
    one.start()
    one.await_fault("since 20")
    assert one.poll() is None
    wire.let_flow()
    one.await_routes(others(2))


def test_what_is_missed_for_long_is_listed_anew(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.stop()
    wire.refuse()
    api.remove("NodeNetwork", "n2", SPACE)
    put(api, 4)
    api.restart()  # what was changed before is too old now
    before = len(api.requests("podwired"))
    one.start()
    eventually(lambda: one.routes() == others(2, 3) or one.describe())
    wire.listen()
    one.await_routes(others(3, 4))
    assert len(asked(api, before)("list")) == 1
    assert published(api) == wanted(1)


def test_an_api_that_restarts_under_a_watch(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    api.stop()
    one.await_fault("since 20")
    assert one.routes() == others(2)
    api.start()
    put(api, 3)
    one.await_routes(others(2, 3))


def test_cut_connections_are_opened_again(api: ApiServer, follow: MakeFollower, wire: Wire) -> None:
    one = follow("n1", 1).start()
    one.await_routes({})
    for number in range(2, 7):
        wire.cut()
        put(api, number)
        one.await_routes(others(*range(2, number + 1)))


# -- restarts


def test_a_restart_goes_on_without_a_list(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.stop()
    put(api, 4)
    api.remove("NodeNetwork", "n3", SPACE)
    before = len(api.requests("podwired"))
    one.start().await_routes(others(2, 4))
    assert asked(api, before)("list") == []
    eventually(lambda: len(asked(api, before)("watch")) == 1)


def test_cluster_cidrs_are_found_in_the_api(api: ApiServer, follow: MakeFollower) -> None:
    """kubeadm's; an administrator who changes them restarts the daemons."""
    put(api, 2)
    api.put_network("n3", ["10.99.3.0/24"], ["192.0.2.3"])
    one = follow("n1", 1)
    one.cluster = ()
    api.remove("ConfigMap", KUBEADM, SYSTEM)
    try:
        one.start().await_fault("no ConfigMap kube-system/kubeadm-config", "set source.kubernetes")
        assert one.poll() is None
        api.admin.apply(kubeadm_config()).expect(200, 201)
        one.await_routes(others(2) | {"n3": []})
        snapshot = one.poll()
        assert snapshot is not None
        assert snapshot.cluster_cidrs == tuple(map(ipaddress.ip_network, POD_SUBNET.split(",")))
        one.stop()
        api.admin.apply(kubeadm_config(f"{POD_SUBNET},10.99.0.0/16")).expect(200)
        one.start().await_routes(others(2) | {"n3": ["10.99.3.0/24"]})
    finally:
        api.admin.apply(kubeadm_config()).expect(200, 201)


def test_last_known_state_is_there_at_once(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    one.stop()
    assert one.known.stat().st_mode & 0o777 == 0o600
    wire.refuse()
    one.start()
    eventually(lambda: one.routes() == others(2, 3) or one.describe())
    one.await_fault("last known state")
    one.stop()
    one.known.write_text(one.known.read_text()[:-40])
    one.start()
    eventually(lambda: "last known state" in one.log.text and "not used" in one.log.text)
    assert one.poll() is None
    wire.listen()
    one.await_routes(others(2, 3))


def test_a_first_start_waits_in_proportion_to_the_cluster(
    api: ApiServer, follow: MakeFollower
) -> None:
    """Daemons that start as one ask for the size as one, and list one after the other."""
    for number in range(400):
        cidr = f"10.244.{100 + number // 16}.{number % 16 * 16}/28"
        api.put_network(f"m{number}", [cidr], [f"198.18.{number // 250}.{1 + number % 250}"])
    made = [follow(f"n{number}", number) for number in range(1, 16)]
    for one in made:
        one.rotate()
    for one in made:
        one.start()
    for one in made:
        eventually(lambda o=one: len(o.nodes()) == 415 or o.describe())  # type: ignore[misc]
    sizes = [r.time for r in api.requests("podwired") if "limit=1" in r.uri][:15]
    lists = sorted(r.time for r in asked(api)("list"))
    assert len(lists) == 15
    assert max(sizes) - min(sizes) < lists[-1] - lists[0]
    assert lists[-1] - lists[0] > 1.5


# -- rights


def test_tokens_rotate(api: ApiServer, follow: MakeFollower, wire: Wire) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    late = api.issue("n1")  # the old one is void
    probe = api.client(wire, one.token.read_text())
    path = place_of("NodeNetwork", SPACE)
    eventually(lambda: probe.ask("GET", path).code == 401)
    wire.cut()
    one.await_fault("401")
    assert one.routes() == others(2)
    one.rotate(late)
    put(api, 3)
    one.await_routes(others(2, 3))


def test_missing_rights_are_named(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one = follow("n1", 1)
    one.rotate(api.stranger())
    one.start()
    one.await_fault("403", "forbidden", "system:serviceaccount:podwire:stranger")
    assert one.token.read_text() not in one.fault + one.log.text
    one.rotate(api.issue("n1"))
    one.await_routes(others(2))


# -- hostile objects


def test_prefixes_outside_the_cluster_are_left_out(api: ApiServer, follow: MakeFollower) -> None:
    one = follow("n1", 1).start()
    outside = ["10.99.0.0/24", "0.0.0.0/1", "10.0.0.0/8", "2001:db8::/64"]
    api.put_network("n2", [*outside, "10.244.2.0/24"], ["192.0.2.2"])
    api.put_network("n3", outside, ["192.0.2.3"])
    put(api, 4)
    eventually(lambda: "n4" in one.nodes() or one.describe())
    eventually(lambda: one.routes().get("n2") == ["10.244.2.0/24"] or one.describe())
    assert one.routes().get("n3", []) == []
    allowed = [ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("fd00:10:244::/48")]
    for node in one.nodes().values():
        for cidr in node.pod_cidrs:
            assert any(
                cidr.version == a.version and cidr.subnet_of(a)  # type: ignore[arg-type]
                for a in allowed
            )
    eventually(lambda: "10.99.0.0/24" in one.log.text or one.describe())


def test_a_prefix_is_not_stolen(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    api.add_node("n3", *facts(3))
    for stolen in (CIDRS["n2"], ["10.244.2.128/25"], CIDRS["n1"], ["10.244.0.0/16"]):
        api.put_network("n3", stolen, facts(3)[1])
        put(api, 4)
        eventually(lambda: "n4" in one.nodes() or one.describe())
        eventually(lambda: one.routes().get("n3", CIDRS["n3"]) == CIDRS["n3"] or one.describe())
        time.sleep(1)
        assert one.routes()["n2"] == CIDRS["n2"]
        assert list(map(str, one.nodes()["n1"].pod_cidrs)) == CIDRS["n1"]
        assert one.routes().get("n3", CIDRS["n3"]) == CIDRS["n3"]
        api.remove("NodeNetwork", "n4", SPACE)
        api.remove("Node", "n4")
        eventually(lambda: "n4" not in one.nodes() or one.describe())


@pytest.mark.parametrize("restart", [False, True])
def test_a_prefix_is_not_stolen_while_its_nodes_daemon_is_stopped(
    api: ApiServer, follow: MakeFollower, restart: bool
) -> None:
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    if restart:
        eventually(lambda: published(api) == wanted(1) or one.describe())
        one.stop()
    api.remove("NodeNetwork", "n2", SPACE)
    api.put_network("ghost", CIDRS["n2"], ["192.0.2.66"])
    api.put_network("ghost2", ["10.244.128.0/17"], ["192.0.2.67"])
    if restart:
        one.start()
    put(api, 4)
    one.await_routes(others(3, 4))
    why = "is left out, or part of it: is not believed"
    eventually(lambda: f"NodeNetwork ghost {why}" in one.log.text or one.describe())
    eventually(lambda: f"NodeNetwork ghost2 {why}" in one.log.text or one.describe())
    assert one.routes() == others(3, 4)
    api.put_network("n2", *facts(2), manager="podwired")
    one.await_routes(others(2, 3, 4))


def test_a_fresh_daemon_believes_no_prefix_of_half_the_cluster(
    api: ApiServer, follow: MakeFollower
) -> None:
    put(api, 2)
    api.put_network("ghost", ["10.244.128.0/17"], ["192.0.2.66"])
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    eventually(lambda: "NodeNetwork ghost is left out" in one.log.text or one.describe())


def test_an_address_is_not_stolen(api: ApiServer, follow: MakeFollower) -> None:
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    api.add_node("n3", *facts(3))
    for stolen in (facts(2)[1], facts(1)[1]):
        api.put_network("n3", CIDRS["n3"], stolen)
        put(api, 4)
        eventually(lambda: "n4" in one.nodes() or one.describe())
        time.sleep(1)
        found = one.nodes()
        assert list(map(str, found["n2"].addresses)) == facts(2)[1]
        assert list(map(str, found["n1"].addresses)) == facts(1)[1]
        assert "n3" not in found or list(map(str, found["n3"].addresses)) == facts(3)[1]
        api.remove("NodeNetwork", "n4", SPACE)
        api.remove("Node", "n4")
        eventually(lambda: "n4" not in one.nodes() or one.describe())


def test_a_known_nodes_change_costs_the_others_no_read(
    api: ApiServer, follow: MakeFollower
) -> None:
    """Neither another address, nor a prefix that no other node has or had."""
    one, two = follow("n1", 1).start(), follow("n2", 2).start()
    one.await_routes(others(2))
    eventually(lambda: two.fault == "" or two.describe())
    for number in (12, 13):
        two.stop()
        report(api, "n2", facts(number)[1])
        two.start()
        wanted_ = facts(number)[1]
        eventually(lambda w=wanted_: addresses(one, "n2") == w or one.describe())  # type: ignore[misc]
        assert reads(api, "n2") == 0
    two.stop()
    api.put_network("n2", CIDRS["n14"], facts(14)[1], "podwired")
    one.await_routes({"n2": CIDRS["n14"]})
    assert reads(api, "n2") == 0


def addresses(one: Follower, name: str) -> list[str]:
    node = one.nodes().get(name)
    return list(map(str, node.addresses)) if node else []


def test_a_compromised_node_claims_at_worst_what_no_other_has(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    """With the token of n3's daemon: other nodes' objects are closed to it, and their prefixes."""
    put(api, 2, 3)
    one = follow("n1", 1).start()
    one.await_routes(others(2, 3))
    evil = api.client(wire, api.issue("n3"))
    for made in (network("n2", CIDRS["n9"], facts(3)[1]), network("n8", *facts(8))):
        eventually(lambda m=made: evil.apply(m, "podwired").code in (403, 422))  # type: ignore[misc]
    assert evil.ask("DELETE", place_of("NodeNetwork", SPACE, "n2")).code in (403, 422)
    for stolen in (CIDRS["n2"], CIDRS["n1"], ["10.244.0.0/16"], ["10.99.0.0/24"]):
        evil.apply(network("n3", stolen, facts(3)[1]), "podwired").expect(200)
        put(api, 4)
        eventually(lambda: "n4" in one.nodes() or one.describe())
        eventually(lambda: one.routes().get("n3") in (CIDRS["n3"], []) or one.describe())
        assert one.routes()["n2"] == CIDRS["n2"]
        assert list(map(str, one.nodes()["n1"].pod_cidrs)) == CIDRS["n1"]
        api.remove("NodeNetwork", "n4", SPACE)
        api.remove("Node", "n4")
        eventually(lambda: "n4" not in one.nodes() or one.describe())
    evil.apply(network("n3", CIDRS["n7"], facts(3)[1]), "podwired").expect(200)
    one.await_routes({"n2": CIDRS["n2"], "n3": CIDRS["n7"]})
    put(api, 7)  # whose it is
    one.await_routes(others(2, 3, 7))


def test_both_of_a_list_that_claim_one_prefix_are_asked(
    api: ApiServer, follow: MakeFollower
) -> None:
    """A daemon that starts knows nobody yet: who came first is no proof."""
    api.add_node("n2", *facts(2))
    api.add_node("n3", *facts(3))
    api.put_network("n2", CIDRS["n3"], facts(2)[1])  # the thief comes first by name
    api.put_network("n3", *facts(3))
    one = follow("n1", 1).start()
    eventually(lambda: one.routes().get("n3") == CIDRS["n3"] or one.describe())
    eventually(lambda: one.routes().get("n2", CIDRS["n2"]) == CIDRS["n2"] or one.describe())


def test_what_others_write_over_its_own_object_is_undone(
    api: ApiServer, follow: MakeFollower
) -> None:
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())
    api.put_network("n1", CIDRS["n9"], facts(9)[1], "intruder")
    eventually(lambda: published(api) == wanted(1) or one.describe())
    assert list(map(str, one.nodes()["n1"].pod_cidrs)) == CIDRS["n1"]
    api.remove("NodeNetwork", "n1", SPACE)
    eventually(lambda: published(api) == wanted(1) or one.describe())
    path = place_of("NodeNetwork", SPACE, "n1")
    patch = {"metadata": {"ownerReferences": None}}
    api.admin.ask("PATCH", path, patch, kind="application/merge-patch+json").expect(200)
    eventually(lambda: (api.network("n1") or {})["metadata"].get("ownerReferences", []) != [])
    assert "n1" in one.log.text


def test_a_second_owner_beside_the_node_is_taken_out(api: ApiServer, follow: MakeFollower) -> None:
    """With it the object would outlive its Node."""
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())
    eventually(lambda: one.fault == "" or one.describe())
    right = (api.network("n1") or {})["metadata"]["ownerReferences"]
    both = [*right, {**right[0], "uid": "b9f2b7de-0000-4000-8000-000000000000"}]
    patch = {"metadata": {"ownerReferences": both}}
    api.admin.ask("PATCH", place_of("NodeNetwork", SPACE, "n1"), patch, kind=MERGE).expect(200)

    def owners() -> object:
        return (api.network("n1") or {"metadata": {}})["metadata"].get("ownerReferences")

    eventually(lambda: owners() == right or one.describe())


def test_what_somebody_else_adds_is_left_alone(api: ApiServer, follow: MakeFollower) -> None:
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())
    made = network("n1", *facts(1))
    del made["spec"]
    made["metadata"]["labels"] = {"team": "a"}
    api.admin.apply(made, "tagger", force=False).expect(200)
    put(api, 2)
    one.await_routes(others(2))
    assert (api.network("n1") or {})["metadata"]["labels"] == {"team": "a"}
    assert published(api) == wanted(1)


def test_garbage_takes_nobody_down(api: ApiServer, follow: MakeFollower) -> None:
    """Whatever a definition without a schema would let through."""
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    garbage: list[object] = [
        {}, {"addresses": None, "podCIDRs": None}, {"addresses": 7, "podCIDRs": {}},
        {"addresses": ["192.0.2.5", "192.0.2.6"], "podCIDRs": ["10.244.5.0/24"]},
        {"addresses": ["127.0.0.1"], "podCIDRs": ["10.244.5.0/24"]},
        {"addresses": ["192.0.2.5; reboot"], "podCIDRs": ["10.244.5.0/24"]},
        {"addresses": ["192.0.2.5"], "podCIDRs": ["10.244.5.0/24\n", "x" * 9000]},
        {"addresses": ["192.0.2.5"], "podCIDRs": [["10.244.5.0/24"], None, 5, True]},
        {"addresses": ["192.0.2.5"], "podCIDRs": [f"10.244.5.{n}/32" for n in range(256)]},
        {"addresses": ["fe80::1%eth0"], "podCIDRs": ["10.244.5.1/24", "10.244.5/24"]},
    ]  # fmt: skip
    with api.without_schema():
        for number, spec in enumerate(garbage):
            made = {**network(f"g{number}", [], []), "spec": spec}
            answer = api.admin.apply(made, "tests")
            assert answer.code in (200, 201), answer
        put(api, 3)
        eventually(lambda: "n3" in one.nodes() or one.describe())
        time.sleep(1)
        allowed = {"10.244.5.0/24"}
        for name, cidrs in one.routes().items():
            assert not name.startswith("g") or set(cidrs) <= allowed
        one.stop()
        one.known.unlink()
        one.start()  # and once more from a list
        eventually(lambda: {"n2", "n3"} <= one.nodes().keys() or one.describe())
        eventually(lambda: one.fault == "" or one.describe())
        api.admin.ask("DELETE", place_of("NodeNetwork", SPACE)).expect(200)


def test_own_object_that_is_there_already_is_taken_over(
    api: ApiServer, follow: MakeFollower
) -> None:
    """Left by an earlier life of the node, or written by whoever was first."""
    api.put_network("n1", CIDRS["n9"], facts(9)[1], "somebody")
    one = follow("n1", 1).start()
    eventually(lambda: published(api) == wanted(1) or one.describe())


def test_an_api_that_went_back_in_time_is_listed_anew(
    api: ApiServer, follow: MakeFollower, wire: Wire
) -> None:
    """Its etcd was restored from a backup: what was heard last is of a time that never was."""
    put(api, 2)
    one = follow("n1", 1).start()
    one.await_routes(others(2))
    eventually(lambda: published(api) == wanted(1) or one.describe())
    one.stop()
    put(api, 3)
    known = one.known.read_text()
    now = position(one)
    one.known.write_text(known.replace(f'[\\"{now}\\"', f'[\\"{now + 10_000_000}\\"'))
    assert position(one) == now + 10_000_000
    one.start().await_routes(others(2, 3))
