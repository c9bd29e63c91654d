"""What others damage comes back, and the journal says what was found."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from daemon.routing.backoff import FLAPPING
from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually

Pair = tuple[Member, Member]


def entries(member: Member) -> dict[str, object]:
    """All that leads to other nodes, as iproute2 tells it."""
    ip, run = member.node.ip, member.node.run
    link = member.node.ns.link(DEVICE)
    if link is None:
        return {}
    neighbours = [
        (n["dst"], n["lladdr"])
        for n in ip(f"neigh show dev {DEVICE} nud permanent")
        if "lladdr" in n
    ]
    return {
        "routes": sorted(map(str, ip("route show proto 113") + ip("-6 route show proto 113"))),
        "neighbours": sorted(neighbours),
        "fdb": sorted(
            run(["bridge", "fdb", "show", "dev", DEVICE], check=False).stdout.split("\n")
        ),
        "addresses": member.node.ns.addresses(DEVICE),
        "all routes": sorted(map(str, ip(f"route show dev {DEVICE}"))),
        "link": {k: link.get(k) for k in TRAITS},
        # In any order: two parts of the daemon bring back what is theirs.
        "rules": sorted(RATES.sub("", run(NFT_LIST, check=False).stdout).splitlines()),
        "forwarding": [member.node.ns.sysctl(key) for key in SYSCTLS],
    }


NFT_LIST = ["nft", "--stateless", "list", "table", "inet", "podwire"]
RATES = re.compile(r"set probe_rates\d \{.*?\n\t\}\n", re.DOTALL)  # packets fill these
TRAITS = ("mtu", "address", "flags", "master", "operstate", "ifalias", "linkinfo")
SYSCTLS = (
    "ipv4/ip_forward",
    "ipv4/conf/eth0/forwarding",
    f"ipv4/conf/{DEVICE}/rp_filter",
    "ipv6/conf/all/forwarding",
    f"ipv6/conf/{DEVICE}/accept_ra",
)


def mac(member: Member) -> str:
    link = member.node.ns.link(DEVICE)
    assert link is not None
    return str(link["address"])


def hop(mac: str) -> str:
    """The link-local address of a device (RFC 4291 appendix A)."""
    raw = [int(part, 16) for part in mac.split(":")]
    groups = (raw[0] ^ 2, raw[1], raw[2], 0xFF, 0xFE, raw[3], raw[4], raw[5])
    pairs = zip(groups[::2], groups[1::2], strict=True)
    return str(ip_address("fe80::" + ":".join(f"{a:02x}{b:02x}" for a, b in pairs)))


def on(command: str) -> Callable[[Member, Member], list[list[str]]]:
    """A command with the peer's values filled in; several with ";" between them."""

    def build(_one: Member, two: Member) -> list[list[str]]:
        values = {
            "dev": DEVICE,
            "n": str(two.number),
            "mac": mac(two),
            "vtep": two.addresses[0],
            "hop": hop(mac(two)),
        }
        return [part.split() for part in command.format(**values).split(";")]

    return build


DAMAGE = {
    "route removed": ("ip route del 10.244.{n}.0/24", "route 10.244.2.0/24"),
    "route replaced": ("ip route replace 10.244.{n}.0/24 via 192.0.2.1", "route 10.244.2.0/24"),
    "route altered": (
        "ip route replace 10.244.{n}.0/24 via 192.0.2.1 proto 113",
        "route 10.244.2.0/24",
    ),
    "route blackholed": (
        "ip route replace blackhole 10.244.{n}.0/24 proto 113",
        "route 10.244.2.0/24",
    ),
    "IPv6 route removed": ("ip route del fd00:10:244:{n}::/64", "route fd00:10:244:2::/64"),
    "IPv6 route replaced": (
        "ip route replace fd00:10:244:{n}::/64 via 2001:db8:ffff::1",
        "route fd00:10:244:2::/64",
    ),
    "stray route": (
        "ip route add 10.99.0.0/16 via 192.0.2.1 proto 113",
        "route 10.99.0.0/16",
    ),
    "all routes flushed": ("ip route flush proto 113", "route 10.244.2.0/24"),
    "neighbour removed": ("ip neigh del 10.244.{n}.0 dev {dev}", "neighbour 10.244.2.0"),
    "neighbour altered": (
        "ip neigh replace 10.244.{n}.0 lladdr 02:00:00:00:00:99 dev {dev} nud permanent",
        "neighbour 10.244.2.0",
    ),
    "IPv6 neighbour removed": (
        "ip neigh del {hop} dev {dev}",
        "neighbour fe80::",
    ),
    "neighbour no longer permanent": (
        "ip neigh change 10.244.{n}.0 lladdr {mac} dev {dev} nud stale",
        "neighbour 10.244.2.0",
    ),
    "FDB entry removed": ("bridge fdb del {mac} dst {vtep} dev {dev} self", "fdb"),
    "FDB entry altered": ("bridge fdb replace {mac} dst 192.0.2.99 dev {dev} self", "fdb"),
    "stray FDB entry": ("bridge fdb add 02:00:00:00:00:99 dst 192.0.2.99 dev {dev} self", "fdb"),
    "FDB entry with a port of its own": (
        "bridge fdb replace {mac} dst {vtep} port 9999 dev {dev} self",
        "fdb",
    ),
    "FDB entry with a VNI of its own": (
        "bridge fdb replace {mac} dst {vtep} vni 99 dev {dev} self",
        "fdb",
    ),
    "FDB entry with a link of its own": (
        "bridge fdb replace {mac} dst {vtep} via lo dev {dev} self",
        "fdb",
    ),
    "default destinations": (
        "bridge fdb append 00:00:00:00:00:00 dst 192.0.2.99 dev {dev} self"
        ";bridge fdb append 00:00:00:00:00:00 dst 192.0.2.98 dev {dev} self",
        "fdb 00:00:00:00:00:00",
    ),
    "device in a bridge": (
        "ip link add br9 type bridge;ip link set {dev} master br9",
        f"link {DEVICE}",
    ),
    "no ARP": ("ip link set {dev} arp off", f"link {DEVICE}"),
    "device down": ("ip link set {dev} down", f"link {DEVICE}"),
    "device deleted": ("ip link del {dev}", f"link {DEVICE}"),
    "device renamed": ("ip link set {dev} down;ip link set {dev} name other", f"link {DEVICE}"),
    "MTU": ("ip link set {dev} mtu 1300", f"link {DEVICE}"),
    "MAC": ("ip link set {dev} address 02:00:00:00:00:99", f"link {DEVICE}"),
    "device of another kind of tunnel": (
        "ip link set {dev} type vxlan id 1 learning",
        f"link {DEVICE}",
    ),
    "address removed": ("ip address del 10.244.1.0/32 dev {dev}", f"link {DEVICE}"),
    "link-local address of a DHCP client": (
        "ip address add 169.254.7.7/16 dev {dev}",
        f"link {DEVICE}",
    ),
    "default route through the device": (
        "ip route add default dev {dev} metric 2000",
        f"link {DEVICE}",
    ),
    "default route by a peer": (
        "ip route add default via 10.244.{n}.0 dev {dev} onlink metric 2000",
        f"link {DEVICE}",
    ),
    "IPv6 route that no peer is behind": (
        "ip route add fd00:99::/64 dev {dev}",
        f"link {DEVICE}",
    ),
    "stray address": ("ip address add 10.77.0.1/24 dev {dev}", f"link {DEVICE}"),
    "forwarding off": ("sysctl -w net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward"),
    "forwarding of the uplink off": (
        "sysctl -w net.ipv4.conf.eth0.forwarding=0",
        "sysctl net/ipv4/conf/eth0/forwarding",
    ),
    "rp_filter": (f"sysctl -w net.ipv4.conf.{DEVICE}.rp_filter=1", "sysctl"),
    "IPv6 forwarding off": (
        "sysctl -w net.ipv6.conf.all.forwarding=0",
        "sysctl net/ipv6/conf/all/forwarding",
    ),
    "a setting that nobody announces": (
        f"sysctl -w net.ipv6.conf.{DEVICE}.accept_ra=1",
        f"sysctl net/ipv6/conf/{DEVICE}/accept_ra",
    ),
    "table removed": ("nft delete table inet podwire", "nftables rules"),
    "ruleset flushed": ("nft flush ruleset", "nftables rules"),
    "rules flushed": ("nft flush chain inet podwire peers", "nftables filter of peers"),
    "set flushed": ("nft flush set inet podwire cluster4", "nftables rules"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_repaired(pair: Pair, name: str) -> None:
    one, two = pair
    before = entries(one)
    command, told = DAMAGE[name]
    length = len(one.history())
    for argv in on(command)(one, two):
        one.node.run(argv)
    eventually(lambda: any(told in record["object"] for record in one.history()[length:]))
    eventually(lambda: same(before, entries(one)))
    eventually(lambda: one.status()["inSync"] or one.log)
    assert one.node.ns.ping("10.244.2.0")
    assert one.node.ns.ping("fd00:10:244:2::")
    fresh = [record for record in one.history() if told in record["object"]]
    assert fresh[-1]["action"] in ("restored", "removed"), (fresh, one.log)
    assert fresh[-1]["cause"]


def test_the_journal_names_no_author_of_a_removed_device(pair: Pair) -> None:
    one, _two = pair
    [made] = one.history(f"link {DEVICE}")
    assert (made["action"], made["before"]) == ("added", "")
    one.node.run(["ip", "link", "del", DEVICE])
    eventually(lambda: len(one.history(f"link {DEVICE}")) > 1)
    restored = one.history(f"link {DEVICE}")[1]
    assert (restored["action"], restored["before"]) == ("restored", "")
    assert restored["cause"] == f"link {DEVICE} was removed"  # the kernel does not tell by whom


def test_a_device_that_comes_back_is_no_error(pair: Pair) -> None:
    one, _two = pair
    for _ in range(5):
        length = len(one.history(f"link {DEVICE}"))
        one.node.run(["ip", "link", "del", DEVICE])
        eventually(partial(has_more, one, length))
        eventually(one.is_in_sync)
    assert " error " not in one.log
    assert one.status()["lastError"] == ""


def test_another_device_in_the_way_is_named(cluster: Cluster) -> None:
    one = cluster.join(start=False)
    one.node.run(["ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472"])
    one.start()
    told = "flannel.1 has VNI 1 and port 8472 already: remove it, or set `vxlan.vni`"
    eventually(lambda: told in one.status().get("fault", "") or one.log)
    assert told in one.log
    one.node.run(["ip", "link", "del", "flannel.1"])
    eventually(one.is_in_sync)
    eventually(lambda: one.status().get("lastErrorOver", 0) > 0)


def test_flapping_is_reported_by_number(pair: Pair) -> None:
    one, _two = pair
    prefix, began = "10.244.2.0/24", time.monotonic()
    for _ in range(30):
        one.node.run(["ip", "route", "del", prefix])
        eventually(lambda: one.has_route(prefix))
    lines = [line for line in one.log.splitlines() if f"route {prefix}" in line]
    # The number is reported once a minute, and a busy machine needs longer for all.
    again = int((time.monotonic() - began) // 60)
    assert FLAPPING <= len(lines) <= FLAPPING + again
    assert f"{FLAPPING} times now" in lines[FLAPPING - 1]
    records = [record["action"] for record in one.history(f"route {prefix}")]
    assert records[:FLAPPING] == ["restored"] * (FLAPPING - 1) + ["flapping"]
    assert len(records) == len(lines)


def test_the_route_in_the_way_is_reported(cluster: Cluster) -> None:
    one, two = cluster.join(start=False), cluster.join(start=False)
    one.node.run(["ip", "route", "add", "10.244.2.0/24", "via", two.addresses[0], "proto", "bird"])
    one.start(allowOverlap=["10.244.2.0/24"])
    told = (
        "could not set route 10.244.2.0/24 of node-2: File exists (EEXIST) - another route is in "
        f"its place, and is not podwire's to remove: via {two.addresses[0]} dev eth0 proto bird"
    )
    eventually(lambda: told in one.log or (one.log, one.status()))
    eventually(lambda: told in one.status().get("lastError", ""))
    one.node.run(["ip", "route", "del", "10.244.2.0/24", "proto", "bird"])
    eventually(one.is_in_sync)


def has_more(member: Member, length: int) -> object:
    """True where the journal has more records of the device, else the log."""
    return len(member.history(f"link {DEVICE}")) > length or member.log


def test_routes_come_back_while_the_store_is_locked(pair: Pair, podwire_bin: Path) -> None:
    one, _two = pair
    one.attach(podwire_bin / "podwire")
    members, prefix = ["nft", "list", "set", "inet", "podwire", "hairpin4"], "10.244.2.0/24"

    def has_members() -> bool:
        return "elements" in one.node.run(members, check=False).stdout

    assert has_members()
    holder = lock_store(one)
    one.node.run(["nft", "delete", "table", "inet", "podwire"])
    one.node.run(["ip", "route", "del", prefix])
    eventually(lambda: one.has_route(prefix))
    # What pods have in sets cannot come while the lock is held: the routes did not wait for it.
    assert not has_members()
    assert holder.poll() is None
    holder.kill()
    holder.communicate()
    eventually(has_members)
    eventually(one.is_in_sync)


def lock_store(member: Member) -> "subprocess.Popen[str]":
    """Hold the store's lock, as whoever replaces its database does, until killed."""
    path = "/var/lib/podwire/podwire.db.lock"
    code = f"import fcntl, time; f = open({path!r}); fcntl.flock(f, fcntl.LOCK_EX); print(1)"
    argv = [*member.node.enter, sys.executable, "-uc", f"{code}; time.sleep(600)"]
    holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    return holder


def same(before: dict[str, object], now: dict[str, object]) -> object:
    """True, or what differs."""
    return before == now or [(before[k], now.get(k)) for k in before if before[k] != now.get(k)]
