"""Mapped ports beside others' rules: floods, flushes, rules in front of ours, kube-proxy's."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.host_ports.test_chained import DEBIAN, addresses, call, chain, main
from tests.netns.host_ports.test_host_ports import BOTH, conf, mapping, outside, served
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import EchoServer, Namespace, Node
from tests.pytest_netns.underlay import Family

MakePod = Callable[[], Namespace]
FLOOD = 10_000

DROP = """
table inet hostile {
    chain drops { type filter hook prerouting priority raw - 10; tcp dport 8080 drop; }
}
"""
DIVERT = """
table inet hostile {
    chain diverts {
        type nat hook prerouting priority dstnat - 10
        meta nfproto ipv4 tcp dport 8080 dnat ip to 192.0.2.1:9
        meta nfproto ipv6 tcp dport 8080 dnat ip6 to [2001:db8:ffff::1]:9
    }
}
"""
SERVICE: dict[Family, str] = {4: "10.96.0.10", 6: "fd00:96::a"}
FIRST: dict[Family, str] = {4: "10.77.0.2", 6: "fd00:77::2"}
"""The first pod's addresses."""
NODE_PORT = 30080


def ruled(node: Node, text: str) -> None:
    node.ns.run(["nft", "-f", "-"], stdin=text)


def reached(scene: Scene, server: EchoServer, family: Family, port: int = 8080) -> bool:
    """Whether it is reached, as it must be."""
    return bool(outside(scene).exchange(server, to=(scene.node.address(family), port)))


def kube_proxy(family: Family, pod: str) -> list[str]:
    """What kube-proxy has for a service with a node port and one endpoint."""
    to = f"[{pod}]:80" if family == 6 else f"{pod}:80"
    return [
        "-N KUBE-SERVICES", "-N KUBE-NODEPORTS", "-N KUBE-POSTROUTING", "-N KUBE-MARK-MASQ",
        "-N KUBE-SVC-WEB", "-N KUBE-SEP-WEB",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        f"-A KUBE-SERVICES -d {SERVICE[family]} -p tcp --dport 80 -j KUBE-SVC-WEB",
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        f"-A KUBE-NODEPORTS -p tcp --dport {NODE_PORT} -j KUBE-MARK-MASQ",
        f"-A KUBE-NODEPORTS -p tcp --dport {NODE_PORT} -j KUBE-SVC-WEB",
        "-A KUBE-SVC-WEB -j KUBE-SEP-WEB",
        f"-A KUBE-SEP-WEB -s {pod} -j KUBE-MARK-MASQ",
        f"-A KUBE-SEP-WEB -p tcp -j DNAT --to-destination {to}",
        "-I PREROUTING -j KUBE-SERVICES", "-I OUTPUT -j KUBE-SERVICES",
        "-I POSTROUTING -j KUBE-POSTROUTING",
    ]  # fmt: skip


def test_a_flood_of_mappings(scene: Scene, make_pod: MakePod) -> None:
    """Of one pod, in one call; a second pod's is found among them."""
    ports = [mapping(port, 80) for port in range(20_000, 20_000 + FLOOD)]
    flood = scene.add(conf("ptp", *ports), make_pod(), "flood")
    one = scene.add(conf("ptp", mapping(8080, 80)), make_pod(), "one")
    last = 20_000 + FLOOD - 1
    for attached, port in ((flood, 20_000), (flood, last), (one, 8080)):
        for family, server in served(attached).items():
            assert reached(scene, server, family, port)
            server.close()
    assert scene.check(flood).code == 0
    refused = scene.call("ADD", conf("ptp", mapping(last, 80)), make_pod(), "two")
    assert refused.json["code"] == 106
    scene.delete(flood)
    scene.delete(one)
    assert scene.leftovers() == []


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
def test_a_flushed_ruleset_is_whole_after_the_next_call(
    scene: Scene, make_pod: MakePod, mode: str
) -> None:
    one = scene.add(conf(mode, mapping(8080, 80)), make_pod(), "one")
    servers = served(one)
    scene.node.ns.run(["nft", "flush", "ruleset"])
    assert scene.check(one).json["code"] == 102
    two = scene.add(conf(mode, mapping(8081, 80)), make_pod(), "two")
    assert scene.check(one).code == scene.check(two).code == 0
    for family, server in servers.items():
        assert reached(scene, server, family)
        assert one.pod.exchange(server, to=(scene.node.address(family), 8080))
    scene.node.ns.run(["nft", "flush", "ruleset"])
    for attached in (one, two):
        scene.delete(attached)
    assert scene.leftovers(one.pod, two.pod) == []


STATEFUL = """
flush ruleset
table inet filter {
    chain input { type filter hook input priority filter; ct state established accept; }
}
"""
"""What a restart of nftables.service loads: connections are tracked on."""


def send_until_answered(client: socket.socket, seconds: float = 60.0) -> bool:
    """Whether a sender that goes on from its port is answered."""
    client.settimeout(0.25)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            client.send(b"who am I?")
            return bool(client.recv(99))
        except ConnectionRefusedError:  # at once
            time.sleep(0.1)
        except TimeoutError:
            pass
    return False


def test_a_sender_that_began_while_rules_were_flushed(scene: Scene, make_pod: MakePod) -> None:
    """Its flow was tracked untranslated, and would lead to nobody for as long as it goes on."""
    one = scene.add(conf("ptp", mapping(5353, 53, "udp")), make_pod(), "one")
    one.pod.echo("udp", one.address(4), 53)
    ruled(scene.node, STATEFUL)
    with outside(scene).socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((scene.node.address(4), 5353))
        client.send(b"to nobody")
        scene.add(conf("ptp", mapping(8081, 80)), make_pod(), "two")
        assert send_until_answered(client)


def test_what_is_chained_to_another_plugin_is_whole_again(
    node: Node, podwire_bin: Path, tmp_path: Path, make_pod: MakePod
) -> None:
    plugins = tmp_path / "bin"
    plugins.mkdir()
    for name in ("ptp", "host-local"):
        (plugins / name).symlink_to(DEBIAN / name)
    (plugins / "portmap").symlink_to((podwire_bin / "portmap").readlink())
    one, two = make_pod(), make_pod()
    first = chain(node, plugins, "ptp", one, "c1")
    server = one.echo("tcp", addresses(first)[4], 80)
    node.ns.run(["nft", "flush", "ruleset"])
    assert call(node, plugins, "CHECK", one, first, "c1").json["code"] == 102
    second = node.cni("ADD", plugins / "ptp", main("ptp"), netns=two.path, container_id="c2")
    other = {"runtimeConfig": {"portMappings": [mapping(9000, 90)]}, "prevResult": second.json}
    port_map = {"cniVersion": "1.0.0", "name": "chain", "type": "portmap", **other}
    added = node.cni("ADD", plugins / "portmap", port_map, netns=two.path, container_id="c2")
    assert added.code == 0, added
    assert node.underlay.ns.exchange(server, to=(node.address(4), 8080))
    assert call(node, plugins, "CHECK", one, first, "c1").code == 0


@pytest.mark.parametrize("rules", [DROP, DIVERT], ids=["drop", "divert"])
def test_rules_in_front_of_ours(scene: Scene, pod: Namespace, rules: str) -> None:
    """They outrank ours, which stay as they are."""
    attached = scene.add(conf("ptp", mapping(8080, 80)), pod)
    servers = served(attached)
    ours = scene.ruleset()
    ruled(scene.node, rules)
    for family, server in servers.items():
        assert not outside(scene).reaches(server, to=(scene.node.address(family), 8080))
    assert scene.check(attached).code == 0
    scene.node.ns.run(["nft", "delete", "table", "inet", "hostile"])
    assert scene.ruleset() == ours
    for family, server in servers.items():
        assert reached(scene, server, family)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_beside_kube_proxy(scene: Scene, make_pod: MakePod, flavour: str, before: bool) -> None:
    """Its rules, of either flavour of iptables, and ours serve their own ports."""
    one, two = make_pod(), make_pod()
    tools: dict[Family, str] = {4: f"iptables-{flavour}", 6: f"ip6tables-{flavour}"}

    def proxied() -> None:
        for family in BOTH:
            for words in kube_proxy(family, FIRST[family]):
                scene.node.ns.run([tools[family], "-w", "-t", "nat", *words.split()])

    if before:
        proxied()
    attached = scene.add(conf("ptp", mapping(8080, 80), ipMasq=True), one, "one")
    scene.add(conf("ptp", ipMasq=True), two, "two")
    if not before:
        proxied()
    servers = served(attached)
    for family, server in servers.items():
        node = scene.node.address(family)
        assert outside(scene).exchange(server, to=(node, 8080)) == gateway(scene, family)
        assert outside(scene).exchange(server, to=(node, NODE_PORT))
        for source in (two, one):
            assert source.exchange(server, to=(node, 8080))
            assert source.exchange(server, to=(SERVICE[family], 80))
        assert scene.node.ns.exchange(server, to=(node, 8080))
        assert scene.node.ns.exchange(server, to=(SERVICE[family], 80))
    assert scene.node.ns.exchange(servers[4], to=("127.0.0.1", 8080))
    scene.delete(attached)
    for family in BOTH:
        listed = scene.node.ns.run([tools[family], "-t", "nat", "-S"]).stdout
        assert listed.count("KUBE-SVC-WEB") == 4, "what is kube-proxy's stays"


def gateway(scene: Scene, family: Family) -> str:
    return scene.node.underlay.gateway(family)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_service_at_the_nodes_address(
    scene: Scene, make_pod: MakePod, flavour: str, before: bool
) -> None:
    """It goes before a mapping of its port, whoever was first, as with the reference: k3s has both
    for each load balancer, and its servers see their clients by kube-proxy's rules alone."""

    def proxied() -> None:
        node, to = scene.node.address(4), "10.77.0.3:90"
        rule = f"-d {node} -p tcp --dport 8080 -j DNAT --to-destination {to}"
        for words in (f"-I PREROUTING {rule}", f"-I OUTPUT {rule}"):
            scene.node.ns.run([f"iptables-{flavour}", "-w", "-t", "nat", *words.split()])

    if before:
        proxied()
    scene.add(conf("ptp", mapping(8080, 80)), make_pod(), "one")
    two = scene.add(conf("ptp"), make_pod(), "two")
    if not before:
        proxied()
    server = two.pod.echo("tcp", two.address(4), 90)
    for source in (outside(scene), scene.node.ns):
        assert source.exchange(server, to=(scene.node.address(4), 8080))


EARLIER = """
table inet podwire {
  chain host_ports { type nat hook prerouting priority dstnat; }
  chain own_host_ports { type nat hook output priority -100; }
}
"""


def make_earlier(node: Node) -> None:
    for name in ("host_ports", "own_host_ports"):
        node.ns.run(["nft", "delete", "chain", "inet", "podwire", name])
    ruled(node, EARLIER)


def test_chains_of_an_earlier_version(scene: Scene, make_pod: MakePod) -> None:
    """They were at another priority, and are replaced."""
    one = scene.add(conf("ptp", mapping(8080, 80)), make_pod(), "one")
    make_earlier(scene.node)
    two = scene.add(conf("ptp", mapping(8081, 80)), make_pod(), "two")
    assert "priority dstnat;" not in scene.ruleset()
    assert "priority -100;" not in scene.ruleset()
    for attached, port in ((one, 8080), (two, 8081)):
        server = served(attached)[4]
        assert reached(scene, server, 4, port)
        assert scene.node.ns.exchange(server, to=(scene.node.address(4), port))
        server.close()
    scene.add(conf("ptp"), make_pod(), "three")
    make_earlier(scene.node)
    scene.delete(one)
    scene.delete(two)
    assert "host_ports" not in scene.ruleset()
