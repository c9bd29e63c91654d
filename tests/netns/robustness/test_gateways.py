"""The bridge has the gateways of its configuration's ranges, whatever it had before."""

import pytest

from tests.netns.robustness.confs import BRIDGE, MODES, Conf, netconf
from tests.netns.robustness.scene import Scene, addresses
from tests.pytest_netns import Namespace
from tests.pytest_netns.plugin import MakeNamespace

FIRST = "10.77.1.0/29"
SECOND = "10.77.9.0/24"
OLD, NEW = "10.77.1.1/29", "10.77.9.1/24"


def gateway_conf(*ranges: str | dict[str, str]) -> Conf:
    """Bridge mode with default routes, one range set."""
    given = [r if isinstance(r, dict) else {"subnet": r} for r in ranges]
    return netconf("bridge", isDefaultGateway=True, ipam={"ranges": [given]})


@pytest.fixture
def pods(netns: MakeNamespace) -> list[Namespace]:
    return [netns(f"pod{number}") for number in range(7)]


def test_pods_of_two_subnets_share_a_bridge(scene: Scene, pods: list[Namespace]) -> None:
    conf = gateway_conf(FIRST, SECOND)
    made = [scene.add(conf, pod, f"c{n}") for n, pod in enumerate(pods)]
    assert [each.cidr(4) for each in made[4:]] == ["10.77.1.6/29", "10.77.9.2/24", "10.77.9.3/24"]
    assert addresses(scene.node.ns, BRIDGE) == {OLD, NEW}
    assert pods[6].ping(made[0].address(4))
    assert all(scene.check(each).code == 0 for each in made)


def test_another_subnet_takes_the_bridge_over(scene: Scene, pods: list[Namespace]) -> None:
    old = scene.add(gateway_conf(FIRST), pods[0], "old")
    new = scene.add(gateway_conf(SECOND), pods[1], "new")
    # The pod of the former subnet still has its gateway.
    assert addresses(scene.node.ns, BRIDGE) == {OLD, NEW}
    assert pods[0].ping(new.address(4))
    assert scene.check(old).code == 0
    scene.delete(old)
    scene.add(gateway_conf(SECOND), pods[2], "next")
    assert addresses(scene.node.ns, BRIDGE) == {NEW}
    assert pods[2].ping(new.address(4))


def test_another_gateway_of_the_same_subnet(scene: Scene, pods: list[Namespace]) -> None:
    old = scene.add(gateway_conf(SECOND), pods[0], "old")
    other = {"subnet": SECOND, "gateway": "10.77.9.254"}
    new = scene.add(gateway_conf(other), pods[1], "new")
    assert addresses(scene.node.ns, BRIDGE) == {NEW, "10.77.9.254/24"}
    assert pods[0].ping(new.address(4))
    scene.delete(old)
    # The first address of a subnet takes the others along when it goes.
    scene.add(gateway_conf(other), pods[2], "next")
    assert addresses(scene.node.ns, BRIDGE) == {"10.77.9.254/24"}
    assert pods[2].ping("10.77.9.254")


def routed_conf(mode: str, gateway: str) -> Conf:
    """Addresses .1 to .6, and one of them the gateway."""
    keys: Conf = {"isDefaultGateway": True} if mode == "bridge" else {}
    return netconf(mode, ipam={"subnet": FIRST, "gateway": gateway}, **keys)


@pytest.mark.parametrize("mode", MODES)
def test_no_pod_gets_the_gateway_of_others(scene: Scene, pods: list[Namespace], mode: str) -> None:
    """Not even as the last address, while pods of the earlier configuration run."""
    before = [scene.add(routed_conf(mode, "10.77.1.1"), pods[n], f"c{n}") for n in range(4)]
    conf = routed_conf(mode, "10.77.1.6")
    refused = scene.call("ADD", conf, pods[4], "new")
    assert (refused.json["code"], "10.77.1.1 is this node's own" in refused.stdout) == (100, True)
    asked = scene.call("ADD", conf, pods[4], "new", args="IP=10.77.1.1")
    assert (asked.json["code"], "10.77.1.1 is this node's own" in asked.stdout) == (105, True)
    scene.delete(before[0])
    new = scene.add(conf, pods[4], "new")
    assert new.address(4) == before[0].address(4)
    assert all(each.pod.ping("10.77.1.1") for each in before[1:])
    assert scene.links(pods[0]) == {"lo"}


@pytest.mark.parametrize("mode", MODES)
def test_no_gateway_is_the_address_of_a_pod(scene: Scene, pods: list[Namespace], mode: str) -> None:
    before = scene.add(routed_conf(mode, "10.77.1.1"), pods[0])
    conf = routed_conf(mode, before.address(4))
    refused = scene.call("ADD", conf, pods[1], "new")
    assert refused.json["code"] == 105
    assert f"gateway {before.address(4)} is the address of container c1" in refused.json["msg"]
    assert before.pod.ping("10.77.1.1")
    scene.delete(before)
    assert scene.add(conf, pods[1], "new").pod.ping(before.address(4))


def test_status_fails_where_add_would(scene: Scene, pods: list[Namespace]) -> None:
    ns, conf = scene.node.ns, gateway_conf(FIRST, SECOND)
    assert scene.call("STATUS", conf).code == 0
    scene.add(conf, pods[0], "c0")
    assert scene.call("STATUS", gateway_conf("10.78.0.0/24")).code == 0
    ns.ip_batch(f"address flush dev {BRIDGE}\naddress add 10.99.0.1/16 dev {BRIDGE}\n")
    refused = scene.call("STATUS", conf)
    assert (refused.json["code"], "10.99.0.1/16" in refused.stdout) == (50, True), refused


@pytest.mark.parametrize(
    ("rival", "named"),
    [
        ("10.77.9.1/24", "docker0 has 10.77.9.0/24"),
        ("10.77.9.129/25", "docker0 has 10.77.9.128/25"),
        ("fd00:79::1/64", "docker0 has fd00:79::/64"),
    ],
)
def test_a_subnet_that_another_link_has_is_refused(
    scene: Scene, pods: list[Namespace], rival: str, named: str
) -> None:
    ns = scene.node.ns
    ns.ip_batch(f"link add docker0 type bridge\naddress add {rival} dev docker0\n")
    ns.ip_batch("link set docker0 up\n")
    conf = netconf("bridge", isGateway=True, ipam={
        "ranges": [[{"subnet": SECOND}], [{"subnet": "fd00:79::/64"}]]})  # fmt: skip
    refused = scene.call("ADD", conf, pods[0], "c0")
    assert refused.json["code"] == 101, refused
    assert named in refused.stdout
    assert ns.link(BRIDGE) is None
    assert scene.call("STATUS", conf).json["code"] == 50
    # A wider route of another link is none.
    ns.ip_batch(f"address del {rival} dev docker0\naddress add 10.77.200.1/16 dev docker0\n")
    added = scene.add(conf, pods[0], "c0")
    assert scene.node.ns.ping(added.address(4))
