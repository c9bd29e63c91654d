"""A pod's mapped ports on a node with the daemon: what others do to them is undone."""

import socket
from pathlib import Path

import pytest

from tests.netns.ctl.test_diff import diff
from tests.netns.host_ports.test_other_rules import send_until_answered
from tests.netns.routing.conftest import Member, eventually
from tests.netns.routing.traffic import address
from tests.pytest_netns import CniResult, Namespace

Pair = tuple[Member, Member]
MAP = "inet podwire any_host_ports4"
DAMAGE = {
    "taken out": f"delete element {MAP} {{ tcp . 8080 }}",
    "map flushed": f"flush map {MAP}",
    "rules flushed": "flush chain inet podwire host_ports",
    "ruleset flushed": "flush ruleset",
    "led elsewhere": f"delete element {MAP} {{ tcp . 8080 }}\n"
    f"add element {MAP} {{ tcp . 8080 : 10.244.1.99 . 80 }}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_mapped_port_comes_back(pair: Pair, podwire_bin: Path, damage: str) -> None:
    one, two = pair
    eventually(one.conflist.exists)
    pod = one.make_pod()
    one.pods.append(pod)
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    conf = {**one.conf(), "runtimeConfig": {"portMappings": ports}}
    assert conf["capabilities"]["portMappings"]
    answer = one.node.cni("ADD", podwire_bin / "podwire", conf, container_id="c1", netns=pod.path)
    assert answer.code == 0, answer
    server, to = pod.echo("tcp", address(pod), 80), (one.addresses[0], 8080)
    assert two.node.ns.exchange(server, to=to) == two.addresses[0]
    known = len(one.history("nftables"))
    one.node.run(["nft", "-f", "-"], stdin=DAMAGE[damage])
    eventually(lambda: two.node.ns.reaches(server, to=to) or one.log)
    eventually(lambda: "restored" in [r["action"] for r in one.history("nftables")[known:]])


@pytest.mark.parametrize("damage", ["map flushed", "rules flushed", "ruleset flushed"])
def test_a_sender_that_began_before_the_repair(pair: Pair, podwire_bin: Path, damage: str) -> None:
    """Its flow was tracked untranslated, and would lead to nobody for as long as it goes on."""
    one, two = pair
    answer, pod = add(one, podwire_bin / "podwire", 5353, "udp")
    assert answer.code == 0, answer
    pod.echo("udp", address(pod), 5353)
    one.node.run(["iptables-legacy", "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED"])
    one.stop()
    one.node.run(["nft", "-f", "-"], stdin=DAMAGE[damage].replace("8080", "5353"))
    with two.node.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((one.addresses[0], 5353))
        client.send(b"to nobody")
        one.start()
        assert send_until_answered(client), one.log


def add(member: Member, plugin: Path, port: int, protocol: str) -> tuple[CniResult, Namespace]:
    """ADD of a pod that asks for a port of the node."""
    eventually(member.conflist.exists)
    pod = member.make_pod()
    ports = [{"hostPort": port, "containerPort": port, "protocol": protocol}]
    conf = {**member.conf(), "runtimeConfig": {"portMappings": ports}}
    name = f"{protocol}{port}"
    return member.node.cni("ADD", plugin, conf, container_id=name, netns=pod.path), pod


@pytest.mark.parametrize(("port", "protocol"), [(8472, "udp"), (8473, "udp"), (9473, "tcp")])
def test_no_pod_gets_a_port_of_the_daemon(
    pair: Pair, podwire_bin: Path, port: int, protocol: str
) -> None:
    """It would receive all that other nodes send."""
    one, _two = pair
    answer, _pod = add(one, podwire_bin / "podwire", port, protocol)
    assert answer.json["code"] == 106
    assert f"host port {port}/{protocol} is podwired's own" in answer.json["msg"]
    other = {"udp": "tcp", "tcp": "udp"}[protocol]
    assert add(one, podwire_bin / "podwire", port, other)[0].code == 0


def test_a_pod_that_had_the_port_before_the_daemon(pair: Pair, podwire_bin: Path) -> None:
    one, two = pair
    eventually(one.conflist.exists)
    one.stop()
    one.node.run(["nft", "flush", "set", "inet", "podwire", "reserved_ports"])
    answer, pod = add(one, podwire_bin / "podwire", 8472, "udp")
    assert answer.code == 0, answer
    far = two.attach(podwire_bin / "podwire")
    assert not far.ping(address(pod), seconds=2)
    one.start()
    eventually(lambda: far.ping(address(pod)) or one.log)


def test_services_of_ipvs_are_not_captured(pair: Pair, podwire_bin: Path) -> None:
    """kube-proxy binds their addresses to a link of the node, where IPVS takes their packets."""
    one, _two = pair
    answer, pod = add(one, podwire_bin / "podwire", 443, "tcp")
    assert answer.code == 0, answer
    server, asking = pod.echo("tcp", address(pod), 443), one.attach(podwire_bin / "podwire")
    service, node = ("10.96.0.1", 443), (one.addresses[0], 443)
    one.node.ns.ip_batch("link add kube-ipvs0 type bridge\naddress add 10.96.0.1/32 dev kube-ipvs0")
    eventually(lambda: not asking.reaches(server, to=service))
    # A Service's external address may be one of the node's as well.
    one.node.ns.ip_batch(f"address add {one.addresses[0]}/32 dev kube-ipvs0")
    one.node.ns.ip_batch("address add 10.96.0.10/32 dev kube-ipvs0")
    eventually(lambda: not asking.reaches(server, to=("10.96.0.10", 443)))
    assert asking.exchange(server, to=node)
    one.node.ns.ip_batch("link delete kube-ipvs0\naddress add 10.96.0.1/32 dev lo")
    eventually(lambda: asking.reaches(server, to=service))


def test_two_attachments_of_a_container(pair: Pair, podwire_bin: Path) -> None:
    """The second one's ports wait for the first: no drift, before and after they are passed on."""
    one, two = pair
    eventually(one.conflist.exists)
    pod = one.make_pod()
    ports = [{"hostPort": 8090, "containerPort": 80, "protocol": "tcp"}]
    conf = {**one.conf(), "runtimeConfig": {"portMappings": ports}}

    def call(verb: str, ifname: str, **keys: object) -> CniResult:
        return one.node.cni(
            verb,
            podwire_bin / "podwire",
            {**conf, **keys},
            container_id="c2",
            netns=pod.path,
            ifname=ifname,
        )

    results = {}
    for ifname in ("eth0", "eth1"):
        results[ifname] = call("ADD", ifname)
        assert results[ifname].code == 0, results[ifname]
    second = results["eth1"].json["ips"][0]["address"].partition("/")[0]
    known = len(one.history("nftables"))
    for ifname in ("eth0", ""):
        assert call("CHECK", "eth1", prevResult=results["eth1"].json).code == 0
        assert diff(one) == []
        if ifname:
            assert call("DEL", ifname).code == 0
    pod.ip_batch(f"route replace default via {second.rpartition('.')[0]}.1 dev eth1")
    server, to = pod.echo("tcp", second, 80), (one.addresses[0], 8090)
    assert two.node.ns.exchange(server, to=to)
    assert one.history("nftables")[known:] == []
    one.node.run(["nft", "flush", "map", *MAP.split()])
    eventually(lambda: two.node.ns.reaches(server, to=to) or one.log)
