"""Each fault is the first finding of `podwirectl doctor`, and fails `podwirectl status`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from tests.netns.doctor.conftest import World, doctor, is_calm, status_code
from tests.netns.doctor.faults import (
    Fault,
    Step,
    do,
    in_pod,
    no_table,
    on,
    pod_address,
    table,
)
from tests.netns.routing.conftest import DEVICE, Member, eventually
from tests.pytest_netns import Namespace, Node

FILL = """
import sys
from ipaddress import ip_network
from pathlib import Path
from ipam.store import open_store
from ipam.transaction import Owner
with open_store(Path("/var/lib/podwire"), create=False) as store, store.transaction() as tx:
    taken = {allocation.address for allocation in tx.allocations()}
    for address in ip_network("10.244.3.0/24"):
        owner = Owner("podwire", f"full-{address}", "eth0")
        if sys.argv[1] == "empty":
            tx.release(owner)
        elif address not in taken and 1 < int(address) & 255 < 255:
            tx.insert(owner, address, 0)
"""


ASK_LATER = """
import sys
from pathlib import Path
from ctl.attachments import read_attachments
from ctl.doctor.probing import Prober
from ctl.planning import plan_node
from daemon.options import settings_of
from kernel.netlink.socket import Netlink
settings = settings_of(Path(sys.argv[1]))
with Netlink() as nl:
    planned, known = plan_node(nl, settings), read_attachments(nl, settings.data_dir).found
    print([each.owner.container_id for each in known], flush=True)
    sys.stdin.readline()
    found = Prober(nl, planned, settings).probe_any(known, ())
    print(found.peers, found.alike)
"""


def fill(world: World, how: str) -> None:
    """Give all addresses of the third node to containers ("full"), or take them back."""
    world.three.node.run([sys.executable, "-c", FILL, how])


def underlay_mtu(world: World, mtu: int) -> None:
    """Let the network drop longer packets: on their way out of its bridge they are fragmented."""
    for port in ("port1", "port2", "port3"):
        world.one.node.underlay.ns.run(["ip", "link", "set", port, "mtu", str(mtu)])


# With a daemon each of these is repaired at once: it is stopped by a signal meanwhile.
UNHEALED = {
    "route deleted": Fault(
        "ip route del 10.244.2.0/24", "true", ("route 10.244.2.0/24", "is missing", "node-2")
    ),
    "route falsified": Fault(
        "ip route replace 10.244.2.0/24 via 192.0.2.1 proto 113",
        "ip route del 10.244.2.0/24",
        ("route 10.244.2.0/24 goes via 192.0.2.1", "node-2"),
    ),
    "neighbour deleted": Fault(
        "ip neigh del 10.244.2.0 dev {dev}", "true", ("neighbour 10.244.2.0", "missing", "node-2")
    ),
    "neighbour falsified": Fault(
        "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:99 dev {dev} nud permanent",
        "true",
        ("neighbour 10.244.2.0", "02:00:00:00:00:99", "node-2"),
    ),
    "FDB entry deleted": Fault(
        "bridge fdb del {mac2} dev {dev}", "true", ("fdb", "missing", "node-2")
    ),
    "FDB entry falsified": Fault(
        "bridge fdb replace {mac2} dev {dev} dst 192.0.2.99 self permanent",
        "true",
        ("fdb", "192.0.2.99", "node-2"),
    ),
    "device down": Fault("ip link set {dev} down", "true", (f"link {DEVICE} is down",)),
    "device deleted": Fault("ip link del {dev}", "true", (f"link {DEVICE} is missing",)),
    "device with another MTU": Fault(
        "ip link set {dev} mtu 1400", "true", (f"link {DEVICE} has MTU 1400, not 1450",)
    ),
    "forwarding off": Fault(
        "sysctl -w net.ipv4.ip_forward=0",
        "sysctl -w net.ipv4.ip_forward=1",
        ("net/ipv4/ip_forward is 0",),
    ),
    "IPv6 forwarding off": Fault(
        "sysctl -w net.ipv6.conf.all.forwarding=0", "true", ("ipv6/conf/all/forwarding is 0",)
    ),
    "forwarding off on the uplink": Fault(
        "sysctl -w net.ipv4.conf.eth0.forwarding=0", "true", ("ipv4/conf/eth0/forwarding is 0",)
    ),
    "forwarding off on a pod's link": Fault(
        "sysctl -w net.ipv4.conf.{link}.forwarding=0", "true", ("pod c1", "forwarding is 0")
    ),
    "node's end down": Fault("ip link set {link} down", "true", ("link pw", "is down")),
    "node's end deleted": Fault("ip route del {pod} dev {link}", "true", ("route", "is missing")),
    "pod's route gone": Fault(
        in_pod("route del default"), "true", ("pod c1", "route 0.0.0.0/0", "is missing in the pod")
    ),
    "bridge's address gone": Fault(
        "ip addr del 10.244.2.1/24 dev cni0", "true", ("10.244.2.1/24", "cni0"), at=2
    ),
    "bridge down": Fault("ip link set cni0 down", "true", ("link cni0", "is down"), at=2),
    "hairpin off": Fault(
        "bridge link set dev {link} hairpin off", "true", ("has hairpin off",), at=2
    ),
    "not on the bridge": Fault(
        "ip link set {link} nomaster", "true", ("not a port of bridge cni0",), at=2
    ),
    "podwire's own rules gone": Fault("nft flush ruleset", "true", ("nft table inet podwire",)),
    "pod's end down": Fault(
        in_pod("link set eth0 down"), in_pod("link set eth0 up"), ("pod c1", "link eth0", "is down")
    ),
}

FULL = "/proc/sys/net/netfilter/nf_conntrack_max"
PROTECTED = "/var/lib/podwire"
NETDEV = "nft add table netdev other\nnft add chain netdev other c"
HOOK = "'{{{{ type filter hook {} device {} priority 0; }}}}'"
NO_NETDEV = "nft delete table netdev other"
SET = """
table inet other {
  set s { type ipv4_addr; flags interval%s; elements = { 10.244.0.0/16 }; }
  chain c { type filter hook forward priority 0; ip saddr @s drop; }
}
"""


def netdev(hook: str, device: str, rule: str) -> str:
    """A chain of another program at a link."""
    made = f"{NETDEV} {HOOK.format(hook, device)}"
    return f"{made}\nnft add rule netdev other c {rule} drop"


def nft(where: Callable[[World], Namespace | Node], script: str) -> Step:
    """Rules of another program."""
    return lambda world: where(world).run(["nft", "-f", "-"], stdin=script)


def bound(value: str) -> Step:
    """Another bound of the table of connections: only the machine's own namespace can set it."""

    def step(world: World) -> None:
        file = world.one.folder / "bound"
        file.write_text(value)
        world.one.node.run(["mount", "--bind", file, FULL])

    return step


def start_resolver(world: World) -> None:
    """A process in the pod whose DNS server, another pod, does not answer."""
    server = next(a.partition("/")[0] for a in world.three.pods[0].addresses("eth0") if "." in a)
    conf = world.one.folder / "resolv.conf"
    conf.write_text(f"nameserver {server}\n")
    world.mute = world.three.pods[0].socket(socket.AF_INET, socket.SOCK_DGRAM)
    world.mute.bind((server, 53))
    script = f"mount --bind {conf} /etc/resolv.conf && exec sleep 600"
    world.process = subprocess.Popen(
        ["nsenter", f"--net={world.pod.path}", "unshare", "--mount", "sh", "-c", script]
    )


def stop_resolver(world: World) -> None:
    if world.process and world.mute:
        world.process.kill()
        world.process.wait()
        world.mute.close()


def second(world: World) -> Namespace:
    """The first node's second pod."""
    return world.one.pods[1]


# Those that doctor finds by itself, in what the kernel answers and by packets of a pod.
LOCAL = {
    "neighbour of the underlay falsified": Fault(
        "ip neigh replace 192.0.2.12 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "ip neigh del 192.0.2.12 dev eth0",
        ("node-2 is not reached, for on this node neighbour 192.0.2.12", "02:00:00:00:00:99"),
    ),
    "no route to a node": Fault(
        "ip route add blackhole 192.0.2.12",
        "ip route del blackhole 192.0.2.12",
        ("node-2 is not reached, for on this node no way to 192.0.2.12",),
    ),
    "policy rule before the underlay": Fault(
        "ip rule add pref 8 to 192.0.2.12 prohibit",
        "ip rule del pref 8",
        ("node-2 is not reached, for on this node", "rule 8: from all to 192.0.2.12/32 prohibit"),
    ),
    "policy rule for pods' packets": Fault(
        "ip rule add pref 9 from 10.244.1.0/24 lookup 99\nip route add blackhole default table 99",
        "ip rule del pref 9\nip route flush table 99",
        ("packets of pods to 10.244.2.0/24", "by rule 9: from 10.244.1.0/24 lookup 99"),
    ),
    "drop after routing": Fault(
        table(1, "filter hook postrouting priority 0", "ip saddr 10.244.1.0/24 drop"),
        no_table(1),
        ("firewall drops what pods send", "rule 2 of chain c of table inet other"),
    ),
    "drop after routing, of iptables-legacy": Fault(
        "iptables-legacy -t mangle -A POSTROUTING -s 10.244.0.0/16 -j DROP",
        "iptables-legacy -t mangle -F",
        ("rule 1 of chain POSTROUTING of table mangle of iptables-legacy",),
    ),
    "drop by a set": Fault(
        nft(lambda world: world.one.node, SET % ""),
        no_table(1),
        ("firewall drops what pods send", "rule 3 of chain c of table inet other"),
    ),
    "drop by a set of elements that expire": Fault(
        nft(lambda world: world.one.node, SET % ", timeout"),
        no_table(1),
        ("c1 gets no answer", "dropped by rule 3 `ip saddr @s drop` of chain c of table inet"),
    ),
    "drop at a pod's link": Fault(
        netdev("ingress", "{link}", "ip saddr 10.244.0.0/16"),
        NO_NETDEV,
        ("firewall drops what pods send", "table netdev other on pw"),
    ),
    "drop at the uplink": Fault(
        netdev("ingress", "eth0", "udp dport 8472"),
        NO_NETDEV,
        ("firewall drops VXLAN (UDP port 8472) from peers", "table netdev other on eth0"),
    ),
    "drop at the overlay": Fault(
        netdev("egress", "{dev}", ""),
        NO_NETDEV,
        ("firewall drops what pods send to other nodes", f"table netdev other on {DEVICE}"),
    ),
    "drop on a bridge": Fault(
        "nft add table bridge other\n"
        "nft add chain bridge other c '{{ type filter hook prerouting priority 0; }}'\n"
        "nft add rule bridge other c iifname '\"pw*\"' drop",
        "nft delete table bridge other",
        ("firewall drops what pods send", "rule 2 of chain c of table bridge other"),
        at=2,
    ),
    "bridge's port blocked": Fault(
        "bridge link set dev {link} state 0",
        "bridge link set dev {link} state 3",
        ("c1 gets no answer", "a port of cni0, is not in state forwarding"),
        at=2,
    ),
    "queue that drops": Fault(
        "tc qdisc replace dev {link} root blackhole",
        "tc qdisc del dev {link} root",
        ("c1 gets no answer", "qdisc blackhole of pw", "may drop packets"),
    ),
    "neighbour of a pod falsified": Fault(
        "ip neigh replace {pod} lladdr 02:00:00:00:00:99 dev {link} nud permanent",
        "ip neigh del {pod} dev {link}",
        ("c1 gets no answer", "neighbour 10.244.1.2 on pw", "02:00:00:00:00:99"),
    ),
    "neighbour in a pod falsified": Fault(
        in_pod("neigh replace 10.244.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent"),
        in_pod("neigh del 10.244.1.1 dev eth0"),
        ("c1 gets no answer", "neighbour 10.244.1.1 on eth0 is 02:00:00:00:00:99"),
    ),
    "route in a pod leads elsewhere": Fault(
        in_pod("link set lo up", "route add 10.244.0.0/16 dev lo"),
        in_pod("route del 10.244.0.0/16 dev lo", "link set lo down"),
        ("c1 gets no answer", "the pod's route to 10.244.2.0 leads to lo"),
    ),
    "route in the second pod leads elsewhere": Fault(
        lambda world: second(world).ip_batch("link set lo up\nroute add 10.244.0.0/16 dev lo\n"),
        lambda world: second(world).ip_batch("route del 10.244.0.0/16 dev lo\nlink set lo down\n"),
        ("c9 gets no answer", "the pod's route to 10.244.", "leads to lo"),
    ),
    "rules in a pod": Fault(
        nft(lambda world: world.pod,
            "table inet other {\nchain c { type filter hook output priority 0; drop; }\n}"),
        lambda world: world.pod.run(["nft", "delete", "table", "inet", "other"]),
        ("c1 gets no answer", "a rule in the pod's own namespace drops it"),
    ),
    "pod's link resolves no neighbours": Fault(
        in_pod("link set eth0 arp off"),
        in_pod("link set eth0 arp on"),
        ("c1 gets no answer", "eth0 of the pod resolves no neighbours (NOARP)"),
    ),
    "pod's MTU too large": Fault(
        in_pod("link set eth0 mtu 9000"),
        in_pod("link set eth0 mtu 1450"),
        ("c1 has MTU 9000 on its link, of which the node's end has 1450",),
    ),
    "DNS mute": Fault(
        start_resolver, stop_resolver, ("DNS is mute: container c1 gets no answer from 10.244.3.2",)
    ),
}  # fmt: skip

LASTING = {
    "overlay's port dropped at the far end": Fault(
        table(2, "filter hook input priority 0", "udp dport 8472 drop"),
        no_table(2),
        ("node-2", "UDP port 8472"),
    ),
    "the same, seen there": Fault(
        table(2, "filter hook input priority 0", "udp dport 8472 drop"),
        no_table(2),
        ("this node's own firewall drops VXLAN (UDP port 8472) from peers", "table inet other"),
        at=2,
    ),
    "pods' prefix dropped by nft": Fault(
        table(1, "filter hook forward priority 0", "ip saddr 10.244.0.0/16 drop"),
        no_table(1),
        ("firewall drops what pods", "rule 2 of chain c of table inet other"),
    ),
    "policy of iptables-nft": Fault(
        "iptables-nft -P FORWARD DROP",
        "iptables-nft -P FORWARD ACCEPT\nnft delete table ip filter",
        ("the policy of chain FORWARD of table ip filter",),
    ),
    "policy of iptables-legacy": Fault(
        "iptables-legacy -P FORWARD DROP",
        "iptables-legacy -P FORWARD ACCEPT",
        ("the policy of chain FORWARD", "legacy"),
    ),
    "rule of iptables-legacy": Fault(
        "iptables-legacy -A FORWARD -s 10.244.0.0/16 -j DROP",
        "iptables-legacy -F FORWARD",
        ("rule 1 of chain FORWARD", "legacy"),
    ),
    "policy rule": Fault(
        "ip rule add pref 9 to 10.244.2.0/24 blackhole",
        "ip rule del pref 9",
        ("10.244.2.0/24 of node-2", "by rule 9"),
    ),
    "host route for a pod CIDR": Fault(
        "ip route add 10.244.3.128/25 via 192.0.2.1",
        "ip route del 10.244.3.128/25",
        ("10.244.3.0/24 of node-3", "10.244.3.128/25", "eth0"),
    ),
    "route of IPv6 with a lower metric": Fault(
        "ip -6 route add fd00:10:244:3::/64 via 2001:db8:ffff::1 metric 1",
        "ip -6 route del fd00:10:244:3::/64 metric 1",
        ("fd00:10:244:3::/64", "node-3"),
    ),
    "foreign DNAT before a host port": Fault(
        table(1, "nat hook prerouting priority -110", "tcp dport 8080 dnat ip to 10.9.9.9"),
        no_table(1),
        ("host port 8080/tcp", "table inet other"),
    ),
    "range full": Fault(
        lambda world: fill(world, "full"),
        lambda world: fill(world, "empty"),
        ("IPv4 addresses of network podwire are in use", "new pods get none"),
        at=3,
    ),
    "remote daemon dead": Fault(
        lambda world: world.three.stop(signal.SIGKILL),
        lambda world: world.three.start(),
        ("node-3", "no process listens"),
        cuts_off=False,
    ),
    "remote node down": Fault(
        lambda world: world.three.node.underlay.ns.run(["ip", "link", "set", "port3", "down"]),
        lambda world: world.three.node.underlay.ns.run(["ip", "link", "set", "port3", "up"]),
        ("node-3", "nothing answers", "neighbour 192.0.2.13 does not resolve on eth0"),
    ),
    "path for smaller packets": Fault(
        lambda world: underlay_mtu(world, 1400),
        lambda world: underlay_mtu(world, 1500),
        ("(mtu)", "of 1450 do not"),
    ),
    "two nodes with one CIDR": Fault(
        lambda world: world.cluster.write(node_3={"podCIDRs": ["10.244.2.0/24"]}),
        lambda world: world.cluster.write(),
        ("10.244.2.0/24 of node-3 is refused", "node-2"),
    ),
    "foreign conflist first": Fault(
        lambda world: world.one.conflist.with_name("00-other.conflist").write_text(
            json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]})
        ),
        lambda world: world.one.conflist.with_name("00-other.conflist").unlink(),
        ("00-other.conflist", "before"),
    ),
    "table of connections full": Fault(
        bound("1"),
        on(1, "umount", FULL),
        ("tracked connections: new ones are refused", "nf_conntrack_max"),
    ),
    "store read-only": Fault(
        f"mount --bind {PROTECTED} {PROTECTED}\nmount -o remount,bind,ro {PROTECTED}",
        f"umount {PROTECTED}",
        (f"the file system of {PROTECTED} is read-only",),
    ),
    "default of forwarding off": Fault(
        "sysctl -w net.ipv4.conf.default.forwarding=0",
        "sysctl -w net.ipv4.conf.default.forwarding=1",
        ("net.ipv4.conf.default.forwarding is 0",),
        cuts_off=False,
    ),
}


def is_named(asked: Member, words: tuple[str, ...]) -> object:
    """True where the first finding has these words."""
    found = doctor(asked)["findings"]
    first = f"{found[0]['what']} {found[0]['do']}" if found else ""
    return all(word in first for word in words) or (found, asked.log)


def has_status(asked: Member, code: int) -> object:
    return status_code(asked) == code or asked.log


def is_well(asked: Member) -> object:
    found = doctor(asked)
    return found["ok"] or (found, asked.log)


def in_two_groups(group: str, names: Iterable[str]) -> list[object]:
    """Parameters whose tests two processes share, each on nodes of its own.

    To make the nodes takes as long as a test; one after the other, all would last longest of all.
    """
    mark = pytest.mark.xdist_group
    return [pytest.param(n, marks=mark(f"{group} {i % 2}")) for i, n in enumerate(names)]


@pytest.mark.parametrize("name", in_two_groups("doctor, no daemon", UNHEALED))
def test_without_a_daemon_that_heals(world: World, name: str) -> None:
    fault = UNHEALED[name]
    asked = world.member(fault.at)
    world.signal(fault.at, signal.SIGSTOP)
    try:
        fault.bring_about(world)
        eventually(partial(is_named, asked, fault.words))
        assert status_code(asked) == 1
        fault.revert(world)
    finally:
        world.signal(fault.at, signal.SIGCONT)
    eventually(partial(is_well, asked))


@pytest.mark.parametrize("name", in_two_groups("doctor, lasting", LASTING))
def test_what_no_daemon_heals(world: World, name: str) -> None:
    fault = LASTING[name]
    asked = world.member(fault.at)
    try:
        fault.bring_about(world)
        eventually(partial(is_named, asked, fault.words))
        if fault.cuts_off:
            eventually(partial(has_status, asked, 1))
    finally:
        fault.revert(world)
    for each in (world.one, world.two, world.three):
        eventually(partial(is_calm, each))


@pytest.mark.parametrize("name", in_two_groups("doctor, by itself", LOCAL))
def test_what_doctor_finds_by_itself(world: World, name: str) -> None:
    fault = LOCAL[name]
    asked = world.member(fault.at)
    try:
        fault.bring_about(world)
        eventually(partial(is_named, asked, fault.words))
        eventually(partial(has_status, asked, 1))
    finally:
        fault.revert(world)
    eventually(partial(has_status, asked, 0))


HEALED: dict[str, tuple[str | Step, str, str]] = {
    "route deleted": ("ip route del 10.244.2.0/24", "route 10.244.2.0/24", "removed by pid"),
    "FDB entry falsified": (
        "bridge fdb replace {mac2} dev {dev} dst 192.0.2.99 self permanent", "fdb ", "changed",
    ),
    "device deleted": ("ip link del {dev}", f"link {DEVICE}", "removed"),
    "forwarding off": ("sysctl -w net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward", "others"),
    "node's end down": ("ip link set {link} down", "link pw", ""),
    "pod's route gone": (
        in_pod("route del default"), "link eth0 in container c1", "changed in the pod",
    ),
    "pod's address gone": (
        lambda world: in_pod(f"address del {pod_address(world)}/24 dev eth0")(world),
        "link eth0 in container c1",
        "changed in the pod",
    ),
}  # fmt: skip


@pytest.mark.xdist_group("doctor, daemon")
@pytest.mark.parametrize("name", HEALED)
def test_what_the_daemon_heals_is_in_the_history_with_its_author(world: World, name: str) -> None:
    inject, changed, author = HEALED[name]
    known = len(world.one.history(changed))
    do(inject, world)
    eventually(lambda: is_restored(world.one.history(changed)[known:], author))


def is_restored(records: list[dict[str, str]], author: str) -> object:
    found = [r["cause"] for r in records if r["action"] == "restored"]
    return any(author in cause for cause in found) or records


@pytest.mark.xdist_group("doctor, daemon")
def test_a_daemon_that_has_ended_leaves_the_repair_to_doctor(world: World) -> None:
    world.three.stop(signal.SIGKILL)
    try:
        pod, dev = world.three.pods[0], DEVICE
        world.three.node.run(["sysctl", "-w", "net.ipv4.ip_forward=0"])
        world.three.node.run(["ip", "link", "del", dev])
        pod.run(["ip", "route", "del", "default"])
        assert not doctor(world.three)["ok"]
        found = doctor(world.three, "--fix")["findings"]
        # Rules are left to the daemon.
        left = {f["check"] for f in found if f["severity"] != "notice"}
        assert {"daemon"} <= left <= {"daemon", "filter"}, found
        assert pod.ping(pod_address(world))
        causes = {r["cause"] for r in world.three.history(dev)}
        assert "podwirectl doctor --fix" in causes
    finally:
        world.three.start()
    eventually(partial(is_well, world.three))


@pytest.mark.xdist_group("doctor, daemon")
def test_a_stale_connection_is_found_and_forgotten(world: World) -> None:
    one = world.one
    table(1, "nat hook prerouting priority -110", "udp dport 9999 dnat ip to 10.244.1.99")(world)
    with one.node.underlay.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (one.addresses[0], 9999))
        no_table(1)(world)
        eventually(partial(is_named, one, ("port 9999 leads to 10.244.1.99", "is no pod's")))
    doctor(one, "--fix")
    eventually(partial(is_well, one))


@pytest.mark.xdist_group("doctor, daemon")
def test_one_pod_and_one_node(world: World) -> None:
    conf = world.one.folder / "podwired.yaml"
    words: list[str | Path] = [world.one.podwirectl, "doctor", "--config", conf]
    done = world.one.node.run([*words, "nobody"], check=False)
    assert done.returncode == 1
    assert "'nobody' is no pod" in done.stderr
    assert doctor(world.one, "c1")["ok"]
    assert doctor(world.one, "node-2")["ok"]
    # Other nodes have no route to a pod of another network.
    other = world.one.make_pod()
    ranges = [[{"subnet": "10.99.0.0/24"}]]
    config = {
        **world.one.conf(),
        "name": "other",
        "ipam": {"type": "podwire-ipam", "ranges": ranges},
    }
    plugin = world.one.podwired.with_name("podwire")
    for verb in ("ADD", "DEL"):
        answer = world.one.node.cni(verb, plugin, config, container_id="o1", netns=other.path)
        assert answer.code == 0, answer
        if verb == "ADD":
            assert doctor(world.one, "o1")["ok"]


@pytest.mark.xdist_group("doctor, daemon")
def test_a_pod_that_is_deleted_meanwhile_is_no_finding(world: World) -> None:
    one = world.one
    pod, plugin = one.make_pod(), one.podwired.with_name("podwire")

    def call(verb: str) -> None:
        answer = one.node.cni(verb, plugin, one.conf(), container_id="a0", netns=pod.path)
        assert answer.code == 0, answer

    call("ADD")
    conf = one.folder / "podwired.yaml"
    argv: list[str | Path] = [*one.node.enter, sys.executable, "-c", ASK_LATER, conf]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        known = asking.stdout.readline()
        call("DEL")
        found, _ = asking.communicate("\n")
    assert (known, found) == ("['a0', 'c1', 'c9']\n", "() 0\n")


@pytest.mark.xdist_group("doctor, daemon")
def test_nothing_is_left(world: World) -> None:
    for each in (world.one, world.two, world.three):
        eventually(partial(is_well, each))
