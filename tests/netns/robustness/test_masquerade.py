"""Masquerade: what leaves a network has the node's address, what stays keeps the pod's."""

import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import Any, Literal

import pytest

from tests.netns.robustness.confs import BRIDGE, FAMILIES, GATEWAYS, MODES, SUBNETS, Conf, netconf
from tests.netns.robustness.scene import DATA_DIR, Attached, Scene
from tests.pytest_netns import EchoServer, Namespace
from tests.pytest_netns.underlay import Family

MakePod = Callable[[], Namespace]
BOTH: tuple[Family, ...] = (4, 6)


def masq(mode: str, **keys: Any) -> Conf:
    return netconf(mode, (4, 6), **({"ipMasq": True} | keys))


def second_network(mode: str, v4: str, v6: str) -> Conf:
    ranges = [[{"subnet": v4}], [{"subnet": v6}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    return masq(mode, name="second", bridge="pwbr1", ipam={"ranges": ranges, "routes": routes})


def outside(scene: Scene, family: Family, protocol: Literal["tcp", "udp"] = "tcp") -> EchoServer:
    underlay = scene.node.underlay
    return underlay.ns.echo(protocol, underlay.gateway(family))


def route_back(scene: Scene, family: Family, subnet: str) -> None:
    """The outside world knows the way to a pod network."""
    scene.node.underlay.ns.ip_batch(f"route add {subnet} via {scene.node.address(family)}")


def sources(scene: Scene, attached: Attached) -> list[str]:
    return [attached.pod.exchange(outside(scene, family)) for family in BOTH]


def nodes_own(scene: Scene) -> list[str]:
    return [scene.node.address(family) for family in BOTH]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", BOTH)
def test_who_sees_which_address(
    scene: Scene,
    make_pod: MakePod,
    mode: str,
    protocol: Literal["tcp", "udp"],
    family: Family,
) -> None:
    one, two = (scene.add(masq(mode), make_pod(), f"c{number}") for number in range(2))
    assert one.pod.exchange(outside(scene, family, protocol)) == scene.node.address(family)
    peer = two.pod.echo(protocol, two.address(family))
    assert one.pod.exchange(peer) == one.address(family)
    own = one.pod.echo(protocol, one.address(family))
    assert scene.node.ns.exchange(own) == GATEWAYS[family]
    node = scene.node.ns.echo(protocol, scene.node.address(family))
    assert one.pod.exchange(node) == one.address(family)


@pytest.mark.parametrize("families", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_without_it_the_pod_keeps_its_address(
    scene: Scene, pod: Namespace, mode: str, families: tuple[Family, ...]
) -> None:
    attached = scene.add(netconf(mode, families), pod)
    for family in families:
        route_back(scene, family, SUBNETS[family])
        assert pod.exchange(outside(scene, family)) == attached.address(family)


@pytest.mark.parametrize("mode", MODES)
def test_a_network_beside_one_without(scene: Scene, make_pod: MakePod, mode: str) -> None:
    scene.add(masq(mode), make_pod(), "masqueraded")
    plain = {**second_network(mode, "10.88.0.0/24", "fd00:88::/64"), "ipMasq": False}
    attached = scene.add(plain, make_pod(), "plain")
    route_back(scene, 4, "10.88.0.0/24")
    route_back(scene, 6, "fd00:88::/64")
    assert sources(scene, attached) == [attached.address(family) for family in BOTH]


SECOND = {
    "apart": ("10.88.0.0/24", "fd00:88::/64"),
    "adjacent": ("10.77.1.0/24", "fd00:77:0:1::/64"),
    "around the first": ("10.77.0.0/16", "fd00:77::/48"),
    "within the first": ("10.77.0.128/25", "fd00:77::8000:0:0:0/65"),
    "the same": ("10.77.0.0/24", "fd00:77::/64"),
}


def share(scene: Scene, mode: str, conf: Conf, subnets: tuple[str, str]) -> None:
    """Let a network overlap the first one: addresses of its own, the same bridge and gateway."""
    conf["args"] = {"cni": {"ips": ["10.77.0.137", "fd00:77::8000:0:0:9"]}}
    if mode == "ptp":
        return
    conf |= {"bridge": BRIDGE, "isGateway": False}
    gateways = {family: {"gateway": GATEWAYS[family]} for family in BOTH}
    conf["ipam"]["ranges"] = [
        [{"subnet": subnet, **(gateways[family] if holds(subnet, GATEWAYS[family]) else {})}]
        for family, subnet in zip(BOTH, subnets, strict=True)
    ]
    for subnet in subnets:
        if not any(holds(subnet, GATEWAYS[family]) for family in BOTH):
            first, _, length = subnet.partition("/")
            own = ipaddress.ip_address(first) + 1
            scene.node.ns.ip_batch(f"address add {own}/{length} dev {BRIDGE}")


def holds(subnet: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first_goes", [True, False], ids=["first goes", "second goes"])
def test_two_networks(
    scene: Scene, make_pod: MakePod, mode: str, second: str, first_goes: bool
) -> None:
    """Prefixes may touch or overlap; whichever network's last pod goes, the other's rules stay."""
    one = scene.add(masq(mode), make_pod(), "one")
    other = second_network(mode, *SECOND[second])
    if second not in ("apart", "adjacent"):
        share(scene, mode, other, SECOND[second])
    two = scene.add(other, make_pod(), "two")
    assert sources(scene, one) == sources(scene, two) == nodes_own(scene)
    goes, stays = (one, two) if first_goes else (two, one)
    scene.delete(goes)
    assert sources(scene, stays) == nodes_own(scene)
    scene.delete(stays)
    left = scene.leftovers(one.pod, two.pod)
    assert [line for line in left if line != "node link pwbr1"] == []


@pytest.mark.parametrize("mode", MODES)
def test_flushed_rules_come_back_for_all(scene: Scene, make_pod: MakePod, mode: str) -> None:
    one = scene.add(masq(mode), make_pod(), "one")
    two = scene.add(second_network(mode, "10.88.0.0/24", "fd00:88::/64"), make_pod(), "two")
    scene.node.ns.run(["nft", "flush ruleset"])
    assert not one.pod.reaches(outside(scene, 4)), "who masqueraded this?"
    three = scene.add(masq(mode), make_pod(), "three")
    for attached in (one, two, three):
        assert sources(scene, attached) == nodes_own(scene)
        assert scene.check(attached).code == 0, "rules of its own are missing"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first_goes", [True, False], ids=["first goes", "second goes"])
def test_networks_with_stores_of_their_own(
    scene: Scene, make_pod: MakePod, mode: str, first_goes: bool
) -> None:
    """`dataDir` may differ from network to network; the rules of all are in the same tables."""
    other = second_network(mode, "10.88.0.0/24", "fd00:88::/64")
    other["ipam"]["dataDir"] = "/var/lib/podwire-second"
    # A store that is made later takes over whoever runs then, for a configuration may have changed.
    assert scene.call("STATUS", masq(mode)).code == scene.call("STATUS", other).code == 0
    one = scene.add(masq(mode), make_pod(), "one")
    two = scene.add(other, make_pod(), "two")
    three = scene.add(masq(mode), make_pod(), "three")
    for attached in (one, two, three):
        assert sources(scene, attached) == nodes_own(scene)
        assert scene.check(attached).code == 0
    goes, stays = ((one, three), (two,)) if first_goes else ((two,), (one, three))
    for attached in goes:
        scene.delete(attached)
    for attached in stays:
        assert sources(scene, attached) == nodes_own(scene)
        assert scene.check(attached).code == 0
    assert scene.gc(stays[0].conf, [(a.container_id, a.ifname) for a in stays]).code == 0
    assert "10.88.0.0/24" in scene.ruleset() or not first_goes
    assert "10.77.0.0/24" in scene.ruleset() or first_goes
    for attached in stays:
        scene.delete(attached)
    left = scene.leftovers(one.pod, two.pod, three.pod)
    assert [line for line in left if line != "node link pwbr1"] == []


@pytest.mark.parametrize("mode", MODES)
def test_rules_go_with_the_last_pod(scene: Scene, make_pod: MakePod, mode: str) -> None:
    one, two = (scene.add(masq(mode), make_pod(), f"c{number}") for number in range(2))
    scene.delete(one)
    assert "table inet podwire" in scene.ruleset()
    scene.delete(two)
    assert scene.ruleset() == ""


def test_multicast_keeps_its_source(scene: Scene, pod: Namespace) -> None:
    """A group is answered to its members: the source must stay the pod."""
    attached = scene.add(masq("ptp"), pod)
    group = "239.1.2.3"
    router = route_multicast(scene, attached, group)
    underlay = scene.node.underlay
    member = underlay.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with router, member:
        member.bind((group, 7777))
        member.settimeout(60)
        joined = socket.inet_aton(group) + socket.inet_aton(underlay.gateway(4))
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
            sender.sendto(b"hello", (group, 7777))
        _, source = member.recvfrom(64)
    assert source[0] == attached.address(4)


def route_multicast(scene: Scene, attached: Attached, group: str) -> socket.socket:
    """Make the node forward a group from a pod to its uplink (linux/mroute.h); while it is open."""
    mrt_init, mrt_add_vif, mrt_add_mfc, vif_by_index = 200, 202, 204, 8
    links = {name: index for index, name in scene.node.ns.call(socket.if_nameindex)}
    router = scene.node.ns.call(
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    )
    router.setsockopt(socket.IPPROTO_IP, mrt_init, 1)
    for number, name in enumerate((attached.host, "eth0")):
        vif = struct.pack("=HBBIi4x", number, vif_by_index, 1, 0, links[name])
        router.setsockopt(socket.IPPROTO_IP, mrt_add_vif, vif)
    addresses = ipaddress.ip_address(attached.address(4)).packed + socket.inet_aton(group)
    route = addresses + struct.pack("=H32s2xIIIi", 0, b"\0\1" + bytes(30), 0, 0, 0, 0)
    router.setsockopt(socket.IPPROTO_IP, mrt_add_mfc, route)
    return router


def exempt(mode: str, *prefixes: str, **keys: Any) -> Conf:
    return masq(mode, nonMasqueradeCIDRs=list(prefixes), **keys)


UNDERLAY = ("192.0.2.0/24", "2001:db8:ffff::/64")


def pods_keep_theirs(scene: Scene, attached: Attached) -> bool:
    """Whether the outside sees the pod's own addresses, of both families."""
    seen = sources(scene, attached)
    assert seen in ([attached.address(f) for f in BOTH], nodes_own(scene))
    return seen != nodes_own(scene)


@pytest.mark.parametrize("mode", MODES)
def test_where_pods_keep_their_address(scene: Scene, make_pod: MakePod, mode: str) -> None:
    """Each network as it is configured; the newest configuration of a network counts."""
    one = scene.add(exempt(mode, *UNDERLAY), make_pod(), "one")
    two = scene.add(second_network(mode, "10.88.0.0/24", "fd00:88::/64"), make_pod(), "two")
    for family in BOTH:
        route_back(scene, family, SUBNETS[family])
    assert pods_keep_theirs(scene, one)
    assert not pods_keep_theirs(scene, two)
    assert scene.check(one).code == scene.check(two).code == 0
    three = scene.add(exempt(mode, "198.51.100.0/24"), make_pod(), "three")
    assert not pods_keep_theirs(scene, one)
    assert scene.check(one).code == 0
    for attached in (one, two, three):
        scene.delete(attached)
    assert scene.ruleset() == ""


@pytest.mark.parametrize("mode", MODES)
def test_switched_off_it_ends_with_the_pods_that_have_it(
    scene: Scene, make_pod: MakePod, mode: str
) -> None:
    one, two = (scene.add(masq(mode), make_pod(), name) for name in ("one", "two"))
    for family in BOTH:
        route_back(scene, family, SUBNETS[family])
    three, four = (scene.add(masq(mode, ipMasq=False), make_pod(), n) for n in ("three", "four"))
    assert [pods_keep_theirs(scene, each) for each in (one, two, three)] == [False, False, True]
    assert [scene.check(each).code for each in (one, two, three)] == [0, 0, 0]
    scene.delete(one)
    assert [pods_keep_theirs(scene, each) for each in (two, three)] == [False, True]
    five = scene.add(masq(mode), make_pod(), "five")
    assert [pods_keep_theirs(scene, each) for each in (two, five)] == [False, False]
    scene.delete(five)
    six = scene.add(masq(mode, ipMasq=False), make_pod(), "six")
    assert [pods_keep_theirs(scene, each) for each in (two, six)] == [False, True]
    scene.delete(two)
    assert pods_keep_theirs(scene, six)
    assert "masquerade" not in scene.ruleset()
    for each in (three, four, six):
        scene.delete(each)
    assert scene.ruleset() == ""


@pytest.mark.parametrize("damage", ["flush set inet podwire internal4", "flush ruleset"])
def test_where_pods_keep_their_address_is_checked_and_repaired(
    scene: Scene, make_pod: MakePod, damage: str
) -> None:
    one = scene.add(exempt("ptp", *UNDERLAY, "10.0.0.0/8"), make_pod(), "one")
    route_back(scene, 4, SUBNETS[4])
    route_back(scene, 6, SUBNETS[6])
    scene.node.ns.run(["nft", *damage.split()])
    answer = scene.check(one)
    assert answer.json["code"] == 102
    scene.add(exempt("ptp", *UNDERLAY, "10.0.0.0/8"), make_pod(), "two")
    assert scene.check(one).code == 0
    assert pods_keep_theirs(scene, one)


def lose_store() -> None:
    for file in DATA_DIR.glob("podwire.db*"):
        file.unlink()


def test_a_store_that_is_lost_takes_none_of_it_along(scene: Scene, make_pod: MakePod) -> None:
    one = scene.add(exempt("ptp", *UNDERLAY), make_pod(), "one")
    route_back(scene, 4, SUBNETS[4])
    route_back(scene, 6, SUBNETS[6])
    scene.on_files(lose_store)
    other = {**second_network("ptp", "10.88.0.0/24", "fd00:88::/64"), "nonMasqueradeCIDRs": []}
    scene.add(other, make_pod(), "two")
    assert pods_keep_theirs(scene, one)


def test_another_store_leaves_it_alone(scene: Scene, make_pod: MakePod) -> None:
    one = scene.add(exempt("ptp", *UNDERLAY), make_pod(), "one")
    route_back(scene, 4, SUBNETS[4])
    route_back(scene, 6, SUBNETS[6])
    other = second_network("ptp", "10.88.0.0/24", "fd00:88::/64")
    other["ipam"]["dataDir"] = "/var/lib/podwire/other"
    two = scene.add(other, make_pod(), "two")
    assert pods_keep_theirs(scene, one)
    assert not pods_keep_theirs(scene, two)
    scene.delete(two)
    assert pods_keep_theirs(scene, one)


def test_a_wrong_prefix_is_refused(scene: Scene, pod: Namespace) -> None:
    answer = scene.call("ADD", exempt("ptp", "10.0.0.1/8"), pod)
    assert answer.json["code"] == 7
    assert "nonMasqueradeCIDRs" in answer.json["msg"]
    assert "10.0.0.1/8" in answer.json["msg"]
    assert scene.leftovers(pod) == []
