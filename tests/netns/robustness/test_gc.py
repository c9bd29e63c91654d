"""GC removes what the runtime does not list, and nothing else."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import BRIDGE, MODES, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace


def other_network(mode: str) -> Conf:
    """A second network of the node, masqueraded too."""
    addresses = {"subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    return netconf(mode, name="other", bridge="pwbr1", ipMasq=True, ipam=addresses)


MakePod = Callable[[], Namespace]


def add_three(scene: Scene, make_pod: MakePod, mode: str) -> list[Attached]:
    conf = netconf(mode, (4, 6), ipMasq=True)
    return [scene.add(conf, make_pod(), f"c{number}") for number in range(3)]


def listed(*attached: Attached) -> list[tuple[str, str]]:
    return [(a.container_id, a.ifname) for a in attached]


@pytest.mark.parametrize("mode", MODES)
def test_keeps_the_valid_ones(scene: Scene, make_pod: MakePod, mode: str) -> None:
    one, two, three = add_three(scene, make_pod, mode)
    answer = scene.gc(one.conf, listed(two))
    assert answer.code == 0, answer
    assert scene.check(two).code == 0
    assert two.pod.ping("10.77.0.1")
    assert two.pod.ping(scene.node.underlay.gateway(4))
    assert scene.links(one.pod) == scene.links(three.pod) == {"lo"}
    assert {row[1] for row in scene.rows()["attachment"]} == {"c1"}
    assert len(scene.rows()["allocation"]) == 2
    assert "c0 eth0" in answer.stderr
    assert "c2 eth0" in answer.stderr


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("valid", [None, []], ids=["null", "empty"])
def test_nothing_valid(
    scene: Scene, make_pod: MakePod, mode: str, valid: list[tuple[str, str]] | None
) -> None:
    attached = add_three(scene, make_pod, mode)
    assert scene.gc(attached[0].conf, valid).code == 0
    assert scene.leftovers(*(a.pod for a in attached)) == []


@pytest.mark.parametrize("mode", MODES)
def test_all_valid(scene: Scene, make_pod: MakePod, mode: str) -> None:
    attached = add_three(scene, make_pod, mode)
    pods = [a.pod for a in attached]
    before = scene.state(*pods)
    more = [("never-was", "eth0"), ("c0", "eth7")]
    assert scene.gc(attached[0].conf, listed(*attached) + more).code == 0
    assert before.changes_to(scene.state(*pods)) == []


def test_without_the_list_only_what_is_surely_gone_goes(scene: Scene, make_pod: MakePod) -> None:
    attached = scene.add(netconf("ptp"), make_pod(), "alive")
    before = scene.state(attached.pod)
    gone = scene.add(netconf("ptp"), make_pod(), "gone")
    scene.node.ns.ip_batch(f"link delete {gone.host}")
    assert scene.call("GC", attached.conf).code == 0
    assert before.changes_to(scene.state(attached.pod)) == []
    assert scene.check(attached).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_other_network_is_untouched(scene: Scene, make_pod: MakePod, mode: str) -> None:
    own = scene.add(netconf(mode, ipMasq=True), make_pod(), "same")
    other = scene.add(other_network(mode), make_pod(), "same")
    assert scene.gc(own.conf, None).code == 0
    assert scene.links(own.pod) == {"lo"}
    assert scene.check(other).code == 0
    assert other.pod.ping("10.88.0.1")
    assert other.pod.ping(scene.node.underlay.gateway(4)), "its masquerade went"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lost", ["attachment", "allocation", "both"])
def test_rows_are_lost(scene: Scene, make_pod: MakePod, mode: str, lost: str) -> None:
    """Links without a record, addresses without a record: leftovers of calls that were killed."""
    attached = add_three(scene, make_pod, mode)
    for table in ("attachment", "allocation"):
        if lost in (table, "both"):
            scene.query(f"DELETE FROM {table} WHERE container_id <> 'c0'")  # noqa: S608
    assert scene.gc(attached[0].conf, listed(attached[0])).code == 0
    assert scene.check(attached[0]).code == 0
    scene.delete(attached[0])
    assert scene.leftovers(*(a.pod for a in attached)) == []


@pytest.mark.parametrize("mode", MODES)
def test_links_were_renamed_by_hand(scene: Scene, make_pod: MakePod, mode: str) -> None:
    one, two, _ = add_three(scene, make_pod, mode)
    scene.node.ns.ip_batch(
        f"link set {one.host} down\nlink set {one.host} name other0\n"
        f"link set {two.host} down\nlink set {two.host} name other1"
    )
    assert scene.gc(one.conf, listed(two)).code == 0
    assert "other0" not in scene.links()
    assert "other1" in scene.links()


@pytest.mark.parametrize("mode", MODES)
def test_goes_on_after_a_failure(scene: Scene, make_pod: MakePod, mode: str) -> None:
    attached = add_three(scene, make_pod, mode)
    # The loopback device is one that the kernel deletes for nobody, whatever its name.
    host = attached[1].host
    scene.node.ns.ip_batch(f"link delete {host}\nlink set lo down\nlink set lo name {host}")
    answer = scene.gc(attached[0].conf, None)
    assert answer.json["code"] == 11, answer
    assert "c1 eth0" in answer.json["details"]
    assert "c0" not in answer.json["details"]
    scene.node.ns.ip_batch(f"link set {host} name lo\nlink set lo up")
    assert {row[1] for row in scene.rows()["attachment"]} == {"c1"}
    assert scene.gc(attached[0].conf, None).code == 0
    assert scene.leftovers(*(a.pod for a in attached)) == []


def test_heals_flushed_rules_of_those_that_stay(scene: Scene, make_pod: MakePod) -> None:
    own = scene.add(netconf("ptp", ipMasq=True), make_pod(), "own")
    other = scene.add(other_network("ptp"), make_pod(), "other")
    scene.node.ns.run(["nft", "flush ruleset"])
    assert scene.gc(own.conf, listed(own)).code == 0
    outside = scene.node.underlay.ns.echo("tcp", scene.node.underlay.gateway(4))
    for attached in (own, other):
        assert attached.pod.exchange(outside) == scene.node.address(4)


def test_strangers_stay(scene: Scene, pod: Namespace) -> None:
    """Links that look like podwire's but lack its mark, bridges, other tables."""
    attached = scene.add(netconf("bridge"), pod)
    scene.node.ns.ip_batch(
        "link add pw0123456789a type veth peer name other0\n"
        "link add other1 type bridge\nlink set other1 alias podwiretap"
    )
    scene.node.ns.run(["nft", "add table inet stranger"])
    assert scene.gc(attached.conf, None).code == 0
    assert {"pw0123456789a", "other0", "other1", BRIDGE} <= scene.links()
    assert scene.ruleset() == "table inet stranger {\n}"
