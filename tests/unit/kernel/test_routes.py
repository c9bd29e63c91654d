"""Entries to other nodes: what a real kernel has after each change."""

import errno
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from kernel.diff import by_key, key_of
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route
from kernel.netlink.socket import Netlink
from kernel.routes import change_entries, find_rival, read_entries
from tests.unit.cni_plugin.namespaces import elsewhere

MAC, OTHER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:03"
FDB = FdbEntry("vx", MAC, ip_address("192.0.2.2"))
FOUR = Neighbour("vx", ip_address("10.2.0.0"), MAC)
SIX = Neighbour("vx", ip_address("fe80::2"), MAC)
TO_FOUR = Route(
    ip_network("10.2.0.0/24"), "vx", FOUR.address, protocol=RTPROT_PODWIRE_PEERS, onlink=True
)
TO_SIX = Route(ip_network("fd00:2::/64"), "vx", SIX.address, protocol=RTPROT_PODWIRE_PEERS)
LOCAL = Route(
    ip_network("10.1.0.0/32"), "lo", scope=254, table=255, protocol=RTPROT_PODWIRE_PEERS,
    local=True,
)  # fmt: skip
ALL: list[Entry] = [TO_SIX, TO_FOUR, SIX, FOUR, FDB]


@pytest.fixture
def nl() -> Iterator[Netlink]:
    """A socket in a namespace with a VXLAN device and a second link, both up."""
    with elsewhere():
        ip("link set lo up")
        ip("link add eth0 type veth peer name eth1")
        ip("link add vx type vxlan id 7 dstport 4789 local 127.0.0.1 nolearning")
        for name in ("eth0", "eth1", "vx"):
            ip(f"link set {name} up")
        with Netlink() as found:
            yield found


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def test_entries_are_added_read_and_removed_in_one_go(nl: Netlink) -> None:
    assert change_entries(nl, ALL, ()) == []
    assert read_entries(nl, "vx") == by_key(ALL)
    # Adding a present neighbour or FDB entry is no change; a route is exclusive.
    assert {(f.entry, f.errno) for f in change_entries(nl, ALL, ())} == {
        (TO_FOUR, errno.EEXIST),
        (TO_SIX, errno.EEXIST),
    }
    assert change_entries(nl, (), ALL) == []
    assert read_entries(nl, "vx") == {}
    assert change_entries(nl, (), ALL) == [], "what is gone is gone"


CHANGED: list[tuple[Entry, Entry]] = [
    (FDB, replace(FDB, dst=ip_address("192.0.2.3"))),
    (FOUR, replace(FOUR, mac=OTHER_MAC)),
    (SIX, replace(SIX, mac=OTHER_MAC)),
    (TO_FOUR, replace(TO_FOUR, via=ip_address("10.2.0.1"))),
    (TO_SIX, replace(TO_SIX, via=ip_address("fe80::3"))),
]


@pytest.mark.parametrize(("old", "new"), CHANGED)
def test_one_entry_replaces_another(nl: Netlink, old: Entry, new: Entry) -> None:
    assert change_entries(nl, ALL, ()) == []
    assert change_entries(nl, [new], [old]) == []
    assert read_entries(nl, "vx") == by_key([*ALL, new])


def test_what_belongs_to_others_is_not_read(nl: Netlink) -> None:
    ip("route add 10.9.0.0/24 dev eth0")
    ip("neigh add 10.9.0.1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent")
    ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev vx nud stale")
    assert read_entries(nl, "vx") == {}
    assert change_entries(nl, [FOUR, FDB, TO_FOUR], ()) == []
    assert read_entries(nl, None) == by_key([TO_FOUR]), "without a device routes alone"


def test_a_foreign_route_is_never_replaced(nl: Netlink) -> None:
    ip("route add 10.2.0.0/24 dev eth0 proto static")
    [failure] = change_entries(nl, [TO_FOUR], ())
    assert (failure.entry, failure.errno) == (TO_FOUR, errno.EEXIST)
    rival = find_rival(nl, TO_FOUR)
    assert rival is not None
    assert (rival.link, rival.protocol) == ("eth0", 4)
    assert find_rival(nl, TO_SIX) is None
    assert change_entries(nl, [TO_FOUR], [rival]) == []
    assert find_rival(nl, TO_FOUR) is None
    assert read_entries(nl, "vx") == by_key([TO_FOUR])


def test_a_group_of_next_hops_is_replaced(nl: Netlink) -> None:
    ip("route add fd00:2::/64 proto 113 nexthop via fe80::2 dev vx nexthop via fe80::3 dev eth0")
    [found] = read_entries(nl, "vx").values()
    assert (found.link, key_of(found)) == ("", key_of(TO_SIX))
    assert change_entries(nl, [TO_SIX], [found]) == []
    assert read_entries(nl, "vx") == by_key([TO_SIX])


def test_an_entry_of_another_port_is_replaced(nl: Netlink) -> None:
    subprocess.run(
        f"bridge fdb add {MAC} dev vx dst 192.0.2.2 port 9999 self permanent".split(), check=True
    )
    [found] = read_entries(nl, "vx").values()
    assert found == replace(FDB, more="port 9999")
    assert change_entries(nl, [FDB], [found]) == []
    assert read_entries(nl, "vx") == by_key([FDB])


def test_local_routes_stand_beside_the_kernels(nl: Netlink) -> None:
    ip("address add 10.1.0.0/32 dev eth0")
    assert change_entries(nl, [LOCAL], ()) == []
    assert read_entries(nl, "vx") == by_key([LOCAL])
    assert change_entries(nl, (), [LOCAL]) == []
    assert read_entries(nl, "vx") == {}
    shown = subprocess.run(
        ["ip", "route", "show", "table", "local", "10.1.0.0"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "proto kernel" in shown.stdout


def test_without_its_link_nothing_is_added_and_all_is_gone(nl: Netlink) -> None:
    ip("link del vx")
    failures = change_entries(nl, [FDB, TO_FOUR], ())
    assert [(f.entry, f.errno, f.hint) for f in failures] == [
        (FDB, errno.ENODEV, "no link vx"),
        (TO_FOUR, errno.ENODEV, "no link vx"),
    ]
    assert change_entries(nl, (), ALL) == []


def test_more_than_one_message_holds(nl: Netlink) -> None:
    many: list[Entry] = [
        Neighbour("vx", ip_address((10 << 24) + number), MAC) for number in range(1100)
    ]
    assert change_entries(nl, many, ()) == []
    assert read_entries(nl, "vx") == by_key(many)
    bad = replace(TO_FOUR, via=ip_address("10.77.0.1"), onlink=False)
    [failure] = change_entries(nl, [bad], many)
    assert failure.entry == bad
    assert failure.hint
    assert read_entries(nl, "vx") == {}
