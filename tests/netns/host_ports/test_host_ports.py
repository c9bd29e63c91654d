"""Ports of the node that lead to pods: from outside, from pods, from the node itself."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import GATEWAYS, MODES, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import EchoServer, Namespace
from tests.pytest_netns.traffic import Protocol
from tests.pytest_netns.underlay import Family

MakePod = Callable[[], Namespace]
BOTH: tuple[Family, ...] = (4, 6)
LOOPBACK: dict[Family, str] = {4: "127.0.0.1", 6: "::1"}


def mapping(port: int, to: int, protocol: str = "tcp", **keys: Any) -> dict[str, Any]:
    return {"hostPort": port, "containerPort": to, "protocol": protocol, **keys}


def conf(mode: str, *mappings: dict[str, Any], **keys: Any) -> Conf:
    return netconf(mode, (4, 6), runtimeConfig={"portMappings": list(mappings)}, **keys)


def outside(scene: Scene) -> Namespace:
    return scene.node.underlay.ns


def served(
    attached: Attached, protocol: Protocol = "tcp", port: int = 80
) -> dict[Family, EchoServer]:
    return {f: attached.pod.echo(protocol, attached.address(f), port) for f in BOTH}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("mode", "filtered"), [("ptp", "0"), ("bridge", "0"), ("bridge", "1")])
def test_who_reaches_a_mapped_port(
    scene: Scene, make_pod: MakePod, mode: str, filtered: str, protocol: Protocol
) -> None:
    """filtered: whether what a bridge forwards passes the rules for IP."""
    for name in ("iptables", "ip6tables"):
        scene.node.ns.sysctl(f"bridge/bridge-nf-call-{name}", filtered)
    one = scene.add(conf(mode, mapping(8080, 80, protocol)), make_pod(), "c1")
    two = scene.add(conf(mode), make_pod(), "c2")
    for family, server in served(one, protocol).items():
        to = scene.node.address(family), 8080
        gateway = scene.node.underlay.gateway(family)
        assert outside(scene).exchange(server, to=to) == gateway, "the source is kept"
        assert two.pod.exchange(server, to=to), "another pod of the node"
        assert one.pod.exchange(server, to=to) != one.address(family), "the pod itself"
        assert two.pod.exchange(server, to=(GATEWAYS[family], 8080)), "another of its addresses"
        assert scene.node.ns.exchange(server, to=to), "the node"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("mode", MODES)
def test_loopback(scene: Scene, make_pod: MakePod, mode: str, protocol: Protocol) -> None:
    """The node's IPv4 loopback leads there too, and opens nothing else."""
    one = scene.add(conf(mode, mapping(8080, 80, protocol)), make_pod())
    server = served(one, protocol)[4]
    assert scene.node.ns.exchange(server, to=("127.0.0.1", 8080)) == GATEWAYS[4]
    private = scene.node.ns.echo(protocol, "127.0.0.1")
    lead_loopback_to_node(one)
    assert not one.pod.reaches(private)
    assert scene.node.ns.exchange(private)


def lead_loopback_to_node(attached: Attached) -> None:
    """Let the pod send to 127.0.0.1 of the node, and receive from there."""
    source = attached.address(4)
    attached.pod.ip_batch(f"route add 127.0.0.1/32 via {GATEWAYS[4]} src {source} table 99")
    attached.pod.sysctl("ipv4/conf/all/route_localnet", "1")
    attached.pod.ip_batch(
        "rule add to 127.0.0.1 lookup 99 pref 1\nrule add lookup local pref 2\n"
        "rule del pref 0 lookup local\n"
    )


@pytest.mark.parametrize("keys", [{}, {"masqAll": True}], ids=["", "masq-all"])
def test_loopback_stays_closed_after_the_last_mapping(
    scene: Scene, make_pod: MakePod, keys: Conf
) -> None:
    """The bridge is there for the other pods, and with it what the kernel lets it through."""
    mapped = [conf("bridge", mapping(port, 80), **keys) for port in (8080, 8081)]
    confs = [*mapped, conf("bridge", **keys)]
    pods = [scene.add(each, make_pod(), f"c{n}") for n, each in enumerate(confs)]
    private, server = scene.node.ns.echo("tcp", "127.0.0.1"), served(pods[1])[4]
    lead_loopback_to_node(pods[2])
    assert scene.call("DEL", confs[0], pods[0].pod, "c0").code == 0
    assert scene.node.ns.exchange(server, to=("127.0.0.1", 8081))
    assert not pods[2].pod.reaches(private)
    assert scene.call("DEL", confs[1], pods[1].pod, "c1").code == 0
    assert not pods[2].pod.reaches(private)
    assert scene.node.ns.exchange(private)


@pytest.mark.parametrize("written", ["{}", "::ffff:{}"])
def test_addresses_of_the_node(scene: Scene, make_pod: MakePod, written: str) -> None:
    """A mapping of one address goes before one of all; the unspecified one is of its family.

    An IPv4-mapped address is its IPv4 address.
    """
    named, node = "192.0.2.77", scene.node.address(4)
    scene.node.ns.ip_batch(f"address add {named}/32 dev lo")
    outside(scene).ip_batch(f"route add {named} via {node}")
    every_ipv4 = mapping(8080, 80, hostIP="0.0.0.0")  # noqa: S104
    ports = {"c1": mapping(8080, 80, hostIP=written.format(named)), "c2": every_ipv4}
    one, two = (scene.add(conf("ptp", each), make_pod(), c) for c, each in ports.items())
    first, second = served(one), served(two)
    assert outside(scene).exchange(first[4], to=(named, 8080))
    assert outside(scene).exchange(second[4], to=(node, 8080))
    second[4].close()
    assert outside(scene).exchange(first[4], to=(named, 8080))
    assert not outside(scene).reaches(second[4], to=(node, 8080))
    assert not outside(scene).reaches(second[6], to=(scene.node.address(6), 8080))


@pytest.mark.parametrize("mode", MODES)
def test_what_passes_through_is_not_captured(scene: Scene, pod: Namespace, mode: str) -> None:
    """The pod that has port 53 of the node asks a server outside at its port 53."""
    attached = scene.add(conf(mode, mapping(53, 80, "udp"), ipMasq=True), pod)
    served(attached, "udp")
    far = outside(scene)
    far.ip_batch("address add 198.51.100.9/32 dev lo")
    assert pod.exchange(far.echo("udp", "198.51.100.9", 53)) == scene.node.address(4)


def test_a_port_that_another_pod_has(scene: Scene, make_pod: MakePod) -> None:
    args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"
    holder = scene.add(conf("ptp", mapping(8080, 80)), make_pod(), "c1", args=args)
    before = scene.state()
    answer = scene.call("ADD", conf("ptp", mapping(8080, 81), mapping(9, 9)), make_pod(), "c2")
    assert answer.json["code"] == 106
    assert "host port 8080/tcp is held by shop/web" in answer.json["msg"]
    assert before.changes_to(scene.state()) == []
    others = [mapping(8080, 80, "udp"), mapping(8080, 80, hostIP=scene.node.address(4))]
    scene.add(conf("ptp", *others), make_pod(), "c3")
    scene.delete(holder)
    scene.add(conf("ptp", mapping(8080, 80)), make_pod(), "c4")


def test_a_port_of_a_pod_that_is_gone(scene: Scene, make_pod: MakePod) -> None:
    """It ended without a DEL."""
    gone = make_pod()
    scene.add(conf("ptp", mapping(8080, 80)), gone, "gone")
    gone.vanish()
    one = scene.add(conf("ptp", mapping(8080, 80)), make_pod(), "one")
    assert outside(scene).exchange(served(one)[4], to=(scene.node.address(4), 8080))
    assert {row[1] for row in scene.rows()["attachment"]} == {"one"}


def test_a_mapping_of_no_pod_is_removed(scene: Scene, pod: Namespace) -> None:
    scene.add(conf("ptp", mapping(1, 1)), pod, "c0", "eth7")
    stray = "add element inet podwire any_host_ports4 { tcp . 8080 : 10.77.0.99 . 80 }"
    scene.node.ns.run(["nft", stray])
    answer = scene.call("ADD", conf("ptp", mapping(8080, 80)), pod)
    assert answer.json["code"] == 11
    assert scene.call("ADD", conf("ptp", mapping(8080, 80)), pod).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_check_and_delete(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(conf(mode, mapping(8080, 80), mapping(8081, 81, "udp")), pod)
    assert scene.check(attached).code == 0
    scene.node.ns.run(["nft", "delete element inet podwire any_host_ports4 { tcp . 8080 }"])
    fault = scene.check(attached)
    assert fault.json["code"] == 102
    assert "any_host_ports4 tcp . 8080 : 10.77.0.2 . 80 of nft table" in fault.json["msg"]
    scene.delete(attached)
    scene.delete(attached)
    assert scene.leftovers(pod) == []


def test_delete_leaves_what_is_another_pods_by_now(scene: Scene, make_pod: MakePod) -> None:
    one, two = make_pod(), make_pod()
    attached = scene.add(conf("ptp", mapping(8080, 80)), one, "c1")
    for family in BOTH:
        scene.node.ns.run(["nft", f"flush map inet podwire any_host_ports{family}"])
    other = scene.add(conf("ptp", mapping(8080, 80)), two, "c2")
    server = served(other)[4]
    scene.delete(attached)
    assert outside(scene).exchange(server, to=(scene.node.address(4), 8080))


def test_a_sender_that_goes_on_reaches_the_new_pod(scene: Scene, make_pod: MakePod) -> None:
    """UDP from one source port: its tracked flow would lead to where the port led before."""
    to = scene.node.address(4), 5353
    with outside(scene).socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.connect(to)
        client.send(b"to nobody")  # tracked untranslated
        for number in (1, 2):
            attached = scene.add(conf("ptp", mapping(5353, 53, "udp")), make_pod(), f"c{number}")
            server = attached.pod.echo("udp", attached.address(4), 53)
            while True:
                try:
                    client.send(b"who am I?")
                    break
                except ConnectionRefusedError:  # the answer to the one before
                    continue
            assert client.recv(99)
            server.close()
            scene.delete(attached)


SERVICE = """
table inet service
flush table inet service
table inet service {{
  chain services {{
    type nat hook prerouting priority dstnat
    ip daddr 198.51.100.9 dnat ip to {}
  }}
}}
"""


@pytest.mark.parametrize("host_ip", ["", "198.51.100.9"])
def test_another_pods_connection_to_the_same_port_elsewhere_goes_on(
    scene: Scene, make_pod: MakePod, host_ip: str
) -> None:
    """A service's rules lead new connections to another server by now."""
    client = scene.add(conf("ptp", ipMasq=True), make_pod(), "client")
    other = make_pod()
    before, now = "198.51.100.1", "198.51.100.2"
    for address in (before, now):
        outside(scene).ip_batch(f"address add {address}/32 dev lo")
    scene.node.ns.run(["nft", "-f", "-"], stdin=SERVICE.format(before))
    server = outside(scene).echo("udp", before, 443)
    with client.pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.settimeout(30)
        flow.connect(("198.51.100.9", 443))
        for change in (
            lambda: scene.node.ns.run(["nft", "-f", "-"], stdin=SERVICE.format(now)),
            lambda: scene.add(conf("ptp", mapping(443, 1, "udp", hostIP=host_ip)), other, "other"),
            lambda: scene.delete(Attached(other, "other", "eth0", conf("ptp"))),
        ):
            flow.send(b"hello")
            assert flow.recv(99)
            change()
        flow.send(b"hello")
        assert flow.recv(99)
    server.close()


def test_many_mappings(scene: Scene, pod: Namespace) -> None:
    """More than one transaction holds; the last of them fails, and nothing stays."""
    ports = [mapping(port, port) for port in range(1000, 1700)]
    attached = scene.add(conf("ptp", *ports), pod)
    assert scene.node.ns.exchange(
        pod.echo("tcp", attached.address(4), 1699), to=(scene.node.address(4), 1699)
    )
    scene.delete(attached)
    assert scene.leftovers(pod) == []
    scene.add(conf("ptp", mapping(1699, 1)), pod, "c2", "eth1")
    before = scene.state(pod)
    assert scene.call("ADD", conf("ptp", *ports), pod).json["code"] == 106
    assert before.changes_to(scene.state(pod)) == []


@pytest.mark.parametrize("masquerade_all", [False, True])
def test_sources(scene: Scene, pod: Namespace, masquerade_all: bool) -> None:
    attached = scene.add(conf("bridge", mapping(8080, 80), masqAll=masquerade_all), pod)
    for family, server in served(attached).items():
        source = outside(scene).exchange(server, to=(scene.node.address(family), 8080))
        kept = scene.node.underlay.gateway(family)
        assert source == (GATEWAYS[family] if masquerade_all else kept)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hostPort": 0}, "runtimeConfig.portMappings[0].hostPort is 0"),
        ({"hostPort": 70000}, "runtimeConfig.portMappings[0].hostPort is 70000"),
        ({"containerPort": None}, "runtimeConfig.portMappings[0].containerPort is None"),
        ({"protocol": "icmp"}, "runtimeConfig.portMappings[0].protocol is 'icmp'"),
        ({"hostIP": "node"}, "runtimeConfig.portMappings[0].hostIP is 'node'"),
    ],
)
def test_wrong_mappings(scene: Scene, pod: Namespace, wrong: dict[str, Any], says: str) -> None:
    answer = scene.call("ADD", conf("ptp", mapping(8080, 80) | wrong), pod)
    assert answer.json["code"] == 7
    assert says in answer.json["msg"]
    assert scene.leftovers(pod) == []
