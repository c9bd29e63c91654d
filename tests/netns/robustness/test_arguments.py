"""What a runtime asks for beside the configuration: effect in kernel, result and record."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import BRIDGE, GATEWAYS, MODES, SUBNETS, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene, addresses
from tests.pytest_netns import Namespace

MAC = "02:aa:bb:cc:dd:ee"
OTHER_MAC = "02:00:00:00:00:01"
K8S = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=1234;SOMETHING=else"


def record(scene: Scene) -> dict[str, Any]:
    rows = scene.query("SELECT record FROM attachment")
    assert len(rows) == 1
    value = json.loads(rows[0][0])
    assert isinstance(value, dict)
    return value


def told_mac(attached: Attached) -> str:
    return str(next(i["mac"] for i in attached.result["interfaces"] if i.get("sandbox")))


MAC_WISHES: dict[str, tuple[Conf, str]] = {
    "runtimeConfig": ({"runtimeConfig": {"mac": MAC}}, ""),
    "args.cni": ({"args": {"cni": {"mac": MAC}}}, ""),
    "CNI_ARGS": ({}, f"MAC={MAC}"),
    "upper case": ({"runtimeConfig": {"mac": MAC.upper()}}, ""),
    "runtimeConfig before the others": (
        {"runtimeConfig": {"mac": MAC}, "args": {"cni": {"mac": OTHER_MAC}}},
        f"MAC={OTHER_MAC}",
    ),
    "args.cni before CNI_ARGS": ({"args": {"cni": {"mac": MAC}}}, f"MAC={OTHER_MAC}"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wish", MAC_WISHES)
def test_mac(scene: Scene, pod: Namespace, mode: str, wish: str) -> None:
    keys, args = MAC_WISHES[wish]
    attached = scene.add(netconf(mode, (4, 6), **keys), pod, args=args)
    link = pod.link("eth0")
    assert link is not None
    assert link["address"] == told_mac(attached) == MAC
    assert record(scene)["plan"]["pod"]["links"][0]["mac"] == MAC
    assert scene.check(attached, args=args).code == 0
    assert pod.ping(GATEWAYS[4])
    assert pod.ping(GATEWAYS[6])


WANTED = ["10.77.0.77", "fd00:77::77"]
ADDRESS_WISHES: dict[str, tuple[Conf, str]] = {
    "runtimeConfig": ({"runtimeConfig": {"ips": WANTED}}, ""),
    "with prefix lengths": ({"runtimeConfig": {"ips": ["10.77.0.77/24", "fd00:77::77/64"]}}, ""),
    "args.cni": ({"args": {"cni": {"ips": WANTED}}}, ""),
    "CNI_ARGS and args.cni": ({"args": {"cni": {"ips": [WANTED[1]]}}}, f"IP={WANTED[0]}"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wish", ADDRESS_WISHES)
def test_addresses(scene: Scene, pod: Namespace, mode: str, wish: str) -> None:
    keys, args = ADDRESS_WISHES[wish]
    attached = scene.add(netconf(mode, (4, 6), **keys), pod, args=args)
    assert [attached.address(4), attached.address(6)] == WANTED
    assert addresses(pod, "eth0") == {"10.77.0.77/24", "fd00:77::77/64"}
    held = [entry["address"] for entry in record(scene)["plan"]["pod"]["addresses"]]
    assert held == ["10.77.0.77/24", "fd00:77::77/64"]
    assert scene.node.ns.ping(WANTED[0])
    assert scene.node.ns.ping(WANTED[1])


@pytest.mark.parametrize("mode", MODES)
def test_address_of_another_pod(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf = netconf(mode, (4, 6), runtimeConfig={"ips": WANTED})
    first, pod = scene.add(conf, make_pod(), "first"), make_pod()
    before = scene.state(pod)
    error = scene.call("ADD", conf, pod, "second").json
    assert error["code"] == 105
    assert "10.77.0.77 is allocated to container first" in error["msg"]
    assert before.changes_to(scene.state(pod)) == []
    scene.delete(first)
    assert scene.add(conf, pod, "second").address(4) == WANTED[0]


REFUSED: dict[str, tuple[Conf, str, int]] = {
    "address outside": ({"runtimeConfig": {"ips": ["192.168.7.7"]}}, "", 7),
    "gateway": ({"runtimeConfig": {"ips": [GATEWAYS[4]]}}, "", 7),
    "network address": ({"args": {"cni": {"ips": ["10.77.0.0"]}}}, "", 7),
    "broadcast address": ({"args": {"cni": {"ips": ["10.77.0.255"]}}}, "", 7),
    "two in one range": ({"runtimeConfig": {"ips": ["10.77.0.7", "10.77.0.8"]}}, "", 7),
    "no address": ({"runtimeConfig": {"ips": ["seven"]}}, "", 7),
    "CNI_ARGS outside": ({}, "IP=192.168.7.7", 4),
    "CNI_ARGS unknown": ({}, "COLOUR=green", 4),
    "CNI_ARGS no address": ({}, "IP=seven", 4),
    "CNI_ARGS multicast MAC": ({}, "MAC=01:00:5e:00:00:01", 4),
    "multicast MAC": ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "", 7),
    "no MAC": ({"runtimeConfig": {"mac": "02:00:00"}}, "", 7),
    "zero MAC": ({"args": {"cni": {"mac": "00:00:00:00:00:00"}}}, "", 7),
    "pod name": ({}, "K8S_POD_NAME=../../etc", 4),
}


@pytest.mark.parametrize("wish", REFUSED)
def test_refused(scene: Scene, pod: Namespace, wish: str) -> None:
    keys, args, code = REFUSED[wish]
    before = scene.state(pod)
    answer = scene.call("ADD", netconf("ptp", (4, 6), **keys), pod, args=args)
    assert answer.code == 1
    assert answer.json["code"] == code, answer
    assert before.changes_to(scene.state(pod)) == []


@pytest.mark.parametrize("mode", MODES)
def test_ranges_of_the_runtime(scene: Scene, pod: Namespace, mode: str) -> None:
    """They come before the configuration's own, or are the only ones."""
    runtime = {"ipRanges": [[{"subnet": SUBNETS[4]}], [{"subnet": SUBNETS[6]}]]}
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    conf = netconf(mode, ipam={"routes": routes}, runtimeConfig=runtime)
    attached = scene.add(conf, pod)
    assert attached.cidr(4) == "10.77.0.2/24"
    assert attached.cidr(6) == "fd00:77::2/64"
    assert pod.ping(GATEWAYS[4])
    assert pod.ping(GATEWAYS[6])
    more = netconf(mode, (6,), runtimeConfig={"ipRanges": [[{"subnet": SUBNETS[4]}]]})
    result = scene.add(more, pod, "c2", "eth1", program="podwire").result
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.3/24", "fd00:77::3/64"]


def test_dns(scene: Scene, pod: Namespace) -> None:
    asked = {"servers": ["10.96.0.10"], "searches": ["shop.svc"], "options": ["ndots:2"]}
    conf = netconf("ptp", runtimeConfig={"dns": asked}, dns={"nameservers": ["192.0.2.53"]})
    attached = scene.add(conf, pod)
    given = {"nameservers": ["10.96.0.10"], "search": ["shop.svc"], "options": ["ndots:2"]}
    assert attached.result["dns"] == given
    assert record(scene)["dns"] == given


def test_dns_of_configuration_and_of_ipam(scene: Scene, make_pod: Callable[[], Namespace]) -> None:
    addresses = {"subnet": SUBNETS[4], "dns": {"nameservers": ["192.0.2.1"], "domain": "ipam"}}
    plain = scene.add(netconf("ptp", ipam=addresses), make_pod(), "plain")
    assert plain.result["dns"] == addresses["dns"]
    named = netconf("ptp", ipam=addresses, dns={"nameservers": ["192.0.2.53"]})
    assert scene.add(named, make_pod(), "named").result["dns"] == {"nameservers": ["192.0.2.53"]}


def test_aliases_and_pod_are_recorded(scene: Scene, pod: Namespace) -> None:
    conf = netconf("bridge", runtimeConfig={"aliases": ["cart", "basket"]})
    attached = scene.add(conf, pod, args=K8S)
    kept = record(scene)
    assert kept["aliases"] == ["cart", "basket"]
    assert kept["pod"] == "shop/cart-0"
    assert kept["netns"] == str(pod.path)
    link = scene.node.ns.link(attached.host)
    assert link is not None
    words = link["ifalias"].split()
    assert words == ["podwire", "net=robust", "id=c1", "if=eth0", "ip=10.77.0.2/24", "pod=shop/cart-0"]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("mode", MODES)
def test_mtu(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    """The uplink's unless the configuration says; large packets pass up to it and not beyond."""
    scene.node.ns.ip_batch("link set eth0 mtu 1420")
    attached = scene.add(netconf(mode, (4, 6)), make_pod(), "uplink")
    link = attached.pod.link("eth0")
    assert link is not None
    assert link["mtu"] == 1420
    assert all(i["mtu"] == 1420 for i in attached.result["interfaces"])
    assert attached.pod.ping(GATEWAYS[4], size=1420, fragment=False)
    assert not attached.pod.ping(GATEWAYS[4], size=1421, fragment=False, seconds=2)
    scene.delete(attached)
    if mode == "bridge":
        scene.node.ns.ip_batch("link delete pwbr0")
    attached = scene.add(netconf(mode, (4, 6), mtu=1300), make_pod(), "own")
    link = attached.pod.link("eth0")
    assert link is not None
    assert link["mtu"] == 1300


@pytest.mark.parametrize("uplink", [1400, 9000])
def test_a_pod_on_a_bridge_of_the_nodes_has_the_bridges_mtu(
    scene: Scene, pod: Namespace, uplink: int
) -> None:
    """Its network is the bridge's: what is larger gets lost, and a smaller port lowers the bridge's
    own MTU (net/bridge/br_if.c, br_mtu_auto_adjust)."""
    scene.node.ns.ip_batch(
        f"link set eth0 mtu {uplink}\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
        f"link add lan type veth peer name lan-peer\nlink set lan master {BRIDGE} up\n"
        "link set lan-peer up\n"
    )
    attached = scene.add(netconf("bridge", isGateway=False), pod)
    assert [i["mtu"] for i in attached.result["interfaces"]] == [1500] * 3
    assert mtu_of(scene.node.ns, BRIDGE) == mtu_of(pod, "eth0") == 1500


@pytest.mark.parametrize(("uplink", "mtu"), [(1400, 1400), (9000, 1500)])
def test_a_pod_on_a_bridge_with_its_gateway_has_at_most_the_bridges_mtu(
    scene: Scene, make_pod: Callable[[], Namespace], uplink: int, mtu: int
) -> None:
    """The uplink changed after an earlier ADD made the bridge, whose pods keep their MTU."""
    first = scene.add(netconf("bridge"), make_pod(), "first")
    scene.node.ns.ip_batch(f"link set eth0 mtu {uplink}")
    second = scene.add(netconf("bridge"), make_pod(), "second")
    assert mtu_of(first.pod, "eth0") == 1500
    assert mtu_of(second.pod, "eth0") == mtu
    assert second.pod.ping(GATEWAYS[4], size=mtu, fragment=False)
    if mtu == 1500:
        assert second.pod.ping(first.address(4), size=mtu, fragment=False)


def test_a_bridge_that_was_empty_limits_no_pod(
    scene: Scene, make_pod: Callable[[], Namespace]
) -> None:
    scene.node.ns.ip_batch("link set eth0 mtu 9000")
    scene.delete(scene.add(netconf("bridge"), make_pod(), "first"))
    assert mtu_of(scene.node.ns, BRIDGE) == 1500, "as the kernel has it"
    second = scene.add(netconf("bridge"), make_pod(), "second")
    assert mtu_of(second.pod, "eth0") == mtu_of(scene.node.ns, BRIDGE) == 9000
    assert second.pod.ping(GATEWAYS[4], size=9000, fragment=False)


def mtu_of(space: Namespace, name: str) -> int:
    link = space.link(name)
    assert link is not None
    return int(link["mtu"])
