"""The node's side of pods is kept as ADD made it, and the journal says what was found."""

import json
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kernel.netlink.socket import POD_OBJECTS_MAX, Netlink
from kernel.pod_side import open_pod
from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.pytest_netns import Namespace
from tests.pytest_netns.plugin import MakeNamespace

ETH_P_ALL = 3  # linux/if_ether.h
PTP = {
    "the pod's link down": "ip link set {host} down",
    "its IPv4 route gone": "ip route del {four}",
    "its IPv6 route gone": "ip -6 route del {six}",
    "its route replaced": "ip route replace {four} dev eth0",
    "the gateway's address gone": "ip address del 10.244.1.1/32 dev {host}",
    "the IPv6 gateway's address gone": "ip address del fd00:10:244:1::1/128 dev {host}",
    "all addresses flushed": "ip address flush dev {host}",
    "forwarding off": "sysctl -w net.ipv4.conf.{host}.forwarding=0",
    "IPv6 off": "sysctl -w net.ipv6.conf.{host}.disable_ipv6=1",
    "another MAC": "ip link set {host} address 02:00:00:00:00:99",
    "another MTU": "ip link set {host} mtu 1300",
    "another alias": "ip link set {host} alias mine",
}
BRIDGE = {
    "the pod's link down": "ip link set {host} down",
    "the port taken off": "ip link set {host} nomaster",
    "the port without hairpin": "bridge link set dev {host} hairpin off",
    "the port isolated": "bridge link set dev {host} isolated on",
    "the port on another bridge": "ip link add br9 type bridge; ip link set {host} master br9",
    "the bridge down": "ip link set cni0 down",
    "the gateway's address gone": "ip address del 10.244.1.1/24 dev cni0",
    "the IPv6 gateway's address gone": "ip address del fd00:10:244:1::1/64 dev cni0",
    "all addresses flushed": "ip address flush dev cni0",
    "forwarding of the bridge off": "sysctl -w net.ipv4.conf.cni0.forwarding=0",
    "IPv6 of the bridge off": "sysctl -w net.ipv6.conf.cni0.disable_ipv6=1",
    "the bridge gone": "ip link del cni0",
}


def host_of(member: Member, pod: Namespace) -> str:
    """The node's end of the pod's pair."""
    link = pod.link("eth0")
    assert link is not None
    found = (k for k in member.node.ip("link show") if k["ifindex"] == link["link_index"])
    return str(next(found)["ifname"])


def node_side(member: Member, host: str, bridge: str) -> dict[str, Any]:
    """What the node has of the pod, as iproute2 shows it."""
    ns, links = member.node.ns, {}
    for name in (host, bridge) if bridge else (host,):
        link = ns.link(name)
        if link is not None:
            links[name] = {key: link.get(key) for key in ("mtu", "address", "master", "ifalias")}
            links[name]["up"] = "UP" in link["flags"]
            port = link.get("linkinfo", {}).get("info_slave_data", {})
            settings = ("ipv4/conf/{}/forwarding", "ipv6/conf/{}/disable_ipv6")
            links[name]["settings"] = [ns.sysctl(setting.format(name)) for setting in settings]
            links[name] |= {key: port.get(key) for key in ("hairpin", "isolated")}
    routes = ns.ip("route show proto 112") + ns.ip("-6 route show proto 112")
    return {
        "links": links,
        "addresses": {name: ns.addresses(name) for name in links},
        "routes": sorted(str((r["dst"], r["dev"])) for r in routes),
    }


def works(member: Member, pod: Namespace) -> bool:
    four, six = pod_addresses(pod)
    uplink = member.node.underlay.gateway(4)
    return member.node.ns.ping(four) and member.node.ns.ping(six) and pod.ping(uplink)


def pod_addresses(pod: Namespace) -> tuple[str, str]:
    found = sorted(pod.addresses("eth0"))
    return found[0].partition("/")[0], found[1].partition("/")[0]


def start(cluster: Cluster, mode: str, **settings: object) -> Member:
    """A node of its own whose pods are attached in this mode."""
    member = cluster.join(start=False)
    member.settings["conflist"]["mode"] = mode
    member.start(**settings)
    eventually(member.is_in_sync)
    return member


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
def test_the_node_side_of_a_pod_comes_back(cluster: Cluster, podwire_bin: Path, mode: str) -> None:
    member = start(cluster, mode)
    damage, bridge = {"ptp": (PTP, ""), "bridge": (BRIDGE, "cni0")}[mode]
    # Two pods in turn: of what is changed again and again the number alone is reported.
    pods = [member.attach(podwire_bin / "podwire") for _ in range(2)]
    hosts = [host_of(member, pod) for pod in pods]
    eventually(lambda: member.status()["attachments"] == 2 or member.log)
    before = [node_side(member, host, bridge) for host in hosts]
    for number, (name, command) in enumerate(damage.items()):
        which = number % 2
        pod, host, planned = pods[which], hosts[which], before[which]
        four, six = pod_addresses(pod)
        known = len(member.history())
        member.node.run(["sh", "-ec", command.format(host=host, four=four, six=six)])
        eventually(partial(is_repaired, member, host, bridge, planned))
        assert works(member, pod), name
        eventually(partial(is_reported, member, known))
    eventually(member.is_in_sync)
    assert member.status()["attachmentsInSync"] == 2


def is_repaired(member: Member, host: str, bridge: str, planned: object) -> object:
    found = node_side(member, host, bridge)
    return found == planned or (planned, found, member.log)


def is_reported(member: Member, known: int) -> object:
    """True where the journal has a repair after the records that it had."""
    fresh = member.history()[known:]
    return any(r["action"] == "restored" and r["before"] for r in fresh) or (fresh, member.log)


POD = {
    "its link down": "link set eth0 down",
    "its addresses flushed": "address flush dev eth0 scope global",
    "its default route gone": "route del default",
}


def test_the_pod_side_comes_back(cluster: Cluster, podwire_bin: Path) -> None:
    member = start(cluster, "ptp")
    pods = [member.attach(podwire_bin / "podwire") for _ in POD]
    eventually(lambda: status_of(member) == (len(POD), len(POD)) or member.log)
    planned = [pod_side(pod) for pod in pods]
    # A default route of the pod's own is its own choice.
    routed = member.attach(podwire_bin / "podwire")
    routed.ip_batch("link add vpn type bridge\nlink set vpn up\nroute replace default dev vpn\n")
    own = pod_side(routed)
    eventually(lambda: status_of(member) == (len(POD) + 1, len(POD) + 1) or member.log)
    member.stop()
    for pod, command in zip(pods, POD.values(), strict=True):
        pod.ip_batch(f"{command}\n")
    member.start()
    for pod, wanted in zip(pods, planned, strict=True):
        eventually(partial(is_planned, pod, wanted))
        assert works(member, pod)
    pods[0].ip_batch("link set eth0 down\n")
    eventually(partial(is_planned, pods[0], planned[0]))
    records = member.history("link eth0 in")
    assert {record["action"] for record in records} == {"restored"}
    assert len(records) == len(POD) + 1
    assert pod_side(routed) == own


def test_addresses_that_another_network_stack_has_taken_stay_away(
    cluster: Cluster, podwire_bin: Path
) -> None:
    """gVisor's (runsc, network.go): it opens a packet socket, then it takes the addresses away."""
    member = start(cluster, "ptp")
    sandbox, pod = (member.attach(podwire_bin / "podwire") for _ in range(2))
    eventually(lambda: status_of(member) == (2, 2) or member.log)
    planned, whole = pod_side(pod), pod_side(sandbox)
    with sandbox.socket(socket.AF_PACKET, socket.SOCK_RAW) as stack:
        stack.bind(("eth0", ETH_P_ALL))
        for space in (sandbox, pod):
            space.ip_batch("address flush dev eth0 scope global\n")
        eventually(partial(is_planned, pod, planned))
        member.stop()
        member.start()
        pod.ip_batch("address flush dev eth0 scope global\n")
        eventually(partial(is_planned, pod, planned))
        assert sandbox.addresses("eth0") == set()
        assert status_of(member) == (2, 2)
    sandbox.ip_batch("link set eth0 down\n")
    eventually(partial(is_planned, sandbox, whole))
    assert works(member, sandbox)


def test_a_pod_with_very_many_routes_holds_nobody_up(cluster: Cluster, podwire_bin: Path) -> None:
    member = start(cluster, "ptp")
    trap, pod = (member.attach(podwire_bin / "podwire") for _ in range(2))
    eventually(lambda: status_of(member) == (2, 2) or member.log)
    numbers = range(POD_OBJECTS_MAX + 1)
    many = (f"route add blackhole 100.64.{n >> 8}.{n & 255}/32 table 7\n" for n in numbers)
    trap.ip_batch("".join(many))
    for space in (trap, pod):
        space.ip_batch("link set eth0 down\n")
    eventually(lambda: works(member, pod) or member.log)
    eventually(member.is_in_sync)
    link = trap.link("eth0")
    assert link is not None
    assert "UP" not in link["flags"]
    trap.run(["ip", "route", "flush", "table", "7"])
    trap.ip_batch("link set eth0 up\nlink set eth0 down\n")
    eventually(lambda: works(member, trap) or member.log)


def test_a_namespace_that_is_not_the_pods_is_never_entered(
    cluster: Cluster, podwire_bin: Path, netns: MakeNamespace
) -> None:
    member = start(cluster, "ptp")
    pod, stranger = member.attach(podwire_bin / "podwire"), netns("stranger")
    eventually(lambda: status_of(member) == (1, 1) or member.log)
    host = host_of(member, pod)

    def opened(path: Path) -> bool:
        with Netlink() as nl:
            found = open_pod(nl, str(path), host)
        if found is not None:
            found.__exit__()
        return found is not None

    # A link of that name there, whose other end has the index of the pod's.
    stranger.ip_batch("link add eth0 type veth peer name other\n")
    call = member.node.ns.call
    assert call(lambda: opened(pod.path))
    assert not call(lambda: opened(stranger.path))
    assert not call(lambda: opened(member.node.ns.path))
    assert not call(lambda: opened(Path("/dev/null")))


def pod_side(pod: Namespace) -> dict[str, Any]:
    routes = pod.ip("route show") + pod.ip("-6 route show")
    link = pod.link("eth0")
    return {
        "up": link is not None and "UP" in link["flags"],
        "addresses": pod.addresses("eth0"),
        "routes": sorted(str((r["dst"], r.get("gateway"), r["dev"])) for r in routes),
    }


def is_planned(pod: Namespace, planned: object) -> object:
    found = pod_side(pod)
    return found == planned or (planned, found)


def test_a_pod_without_its_link_is_reported_until_it_is_deleted(
    cluster: Cluster, podwire_bin: Path
) -> None:
    member = start(cluster, "ptp")
    pods = [member.attach(podwire_bin / "podwire") for _ in range(2)]
    member.node.run(["ip", "link", "del", host_of(member, pods[0])])
    eventually(lambda: status_of(member) == (2, 1) or member.log)
    assert "1 of 2 attachments are not as planned" in str(member.status()["troubles"])
    assert member.is_in_sync() is not True
    assert [r["action"] for r in member.history("of container c1")] == ["found"]
    delete(member, podwire_bin, "c1")
    eventually(member.is_in_sync)
    assert status_of(member) == (1, 1)


def test_a_pod_that_is_gone_without_a_del_is_freed(cluster: Cluster, podwire_bin: Path) -> None:
    """As after a DEL that found the disk full, and removed all but the rows."""
    member = start(cluster, "ptp")
    pods = [member.attach(podwire_bin / "podwire") for _ in range(2)]
    eventually(lambda: status_of(member) == (2, 2) or member.log)
    pods[0].remove()
    eventually(lambda: status_of(member) == (1, 1) or member.log)
    eventually(member.is_in_sync)
    held = member.node.run([podwire_bin / "podwire-ipam", "list"]).stdout
    assert (" c1 " in held, " c2 " in held) == (False, True)
    assert "container c1 interface eth0 is gone without a DEL" in member.log


def test_a_link_that_only_has_the_name_is_left_alone(cluster: Cluster, podwire_bin: Path) -> None:
    member = start(cluster, "ptp")
    host = host_of(member, member.attach(podwire_bin / "podwire"))
    eventually(lambda: status_of(member) == (1, 1) or member.log)
    member.node.ns.ip_batch(f"link del {host}\nlink add {host} type bridge\n")
    eventually(lambda: status_of(member) == (1, 0) or member.log)
    link = member.node.ns.link(host)
    assert link is not None
    assert ("UP" in link["flags"], link.get("ifalias")) == (False, None)


def test_calls_in_flight_are_left_alone(cluster: Cluster, podwire_bin: Path) -> None:
    """Pods come and go while others are damaged: no call fails, nothing stays behind."""
    member = start(cluster, "ptp")
    member.attach(podwire_bin / "podwire")
    for number in range(12):
        pod = member.attach(podwire_bin / "podwire")
        member.node.run(["ip", "link", "set", host_of(member, pod), "down"])
        delete(member, podwire_bin, f"c{number + 2}")
    eventually(lambda: status_of(member) == (1, 1) or member.log)
    eventually(member.is_in_sync)
    assert len(member.node.ip("route show proto 112")) == 1
    assert not member.history("found")


def test_the_bridge_follows_the_pod_cidrs(cluster: Cluster, podwire_bin: Path) -> None:
    member = start(cluster, "bridge")
    old = member.attach(podwire_bin / "podwire")
    cluster.write(node_1={"podCIDRs": ["10.244.7.0/29", "10.244.9.0/24"]})
    eventually(lambda: "10.244.9.0/24" in member.conflist.read_text() or member.log)
    pods = [member.attach(podwire_bin / "podwire") for _ in range(7)]
    new = {"10.244.7.1/29", "10.244.9.1/24"}
    addresses = member.node.ns.addresses
    assert addresses("cni0") == {"10.244.1.1/24", "fd00:10:244:1::1/64", *new}
    for pod in (old, *pods):
        assert pod.ping(member.node.underlay.gateway(4))
    # No other node could get the former prefix while the node has its gateway.
    delete(member, podwire_bin, "c1")
    eventually(lambda: addresses("cni0") == new or (addresses("cni0"), member.log))
    eventually(member.is_in_sync)


def test_the_node_is_not_ready_while_its_bridge_cannot_be_used(
    cluster: Cluster, podwire_bin: Path
) -> None:
    member = start(cluster, "bridge")
    # With its address from the beginning: the daemon would give an empty one its gateways.
    member.node.ns.ip_batch(
        "link add br7 type bridge\naddress add 10.99.0.1/16 dev br7\nlink set br7 name cni0\n"
    )
    eventually(lambda: "it has 10.99.0.1/16 already" in member.status()["fault"] or member.log)
    member.node.run(["ip", "link", "del", "cni0"])
    eventually(member.is_in_sync)
    member.attach(podwire_bin / "podwire")


def status_of(member: Member) -> tuple[int, int]:
    status = member.status()
    return status["attachments"], status["attachmentsInSync"]


def delete(member: Member, podwire_bin: Path, container_id: str) -> None:
    listed = json.loads(member.conflist.read_text())
    conf = {**listed["plugins"][0], "name": listed["name"], "cniVersion": listed["cniVersion"]}
    plugin = podwire_bin / "podwire"
    assert member.node.cni("DEL", plugin, conf, container_id=container_id).code == 0


def test_pods_that_were_made_without_the_source_check_are_counted(
    cluster: Cluster, podwire_bin: Path
) -> None:
    """As those of an earlier version; recreated, they are checked."""
    member = start(cluster, "ptp")
    plugin = podwire_bin / "podwire"
    eventually(member.conflist.exists)
    pods = [member.make_pod() for _ in range(2)]

    def call(verb: str, number: int, **keys: object) -> None:
        conf, netns = {**member.conf(), **keys}, pods[number].path
        answer = member.node.cni(verb, plugin, conf, container_id=f"c{number}", netns=netns)
        assert answer.code == 0, (answer, member.log)

    call("ADD", 0)
    call("ADD", 1, sourceCheck=False)
    text = "1 of 2 attachments were made without the source check, and may send from any address"
    eventually(lambda: text in member.fault("unchecked") or member.status())
    assert "of container c1" in member.fault("unchecked")
    call("DEL", 1)
    call("ADD", 1)
    eventually(lambda: member.status()["attachments"] == 2 and not member.fault("unchecked"))
    eventually(member.is_in_sync)
