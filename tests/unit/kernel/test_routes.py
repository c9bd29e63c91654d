"""Our neighbour, FDB and peers' route messages as pyroute2 reads them, and the reverse."""

import sys
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

from kernel.diff import key_of
from kernel.model import Entry, FdbEntry, Neighbour, Route
from kernel.netlink import codec as wire
from kernel.netlink import links as rtnl
from kernel.netlink import neighbours as neigh
from kernel.netlink.codec import Message
from kernel.routes import read_any_route
from tests.unit.kernel import strategies as nouns
from tests.unit.kernel.netlink.test_links import (
    CREATE,
    FAMILY,
    INDEXES,
    REQUEST,
    decode,
    encode,
    members,
    told,
    without_none,
)

REPLACE = wire.NLM_F_REPLACE
AF_BRIDGE, PERMANENT, SELF = 7, 0x80, 2


@given(nouns.neighbours, INDEXES)
def test_neighbours(entry: Neighbour, index: int) -> None:
    added = decode(ndmsg, neigh.add_neighbour(entry, index))
    assert added["header"]["type"] == neigh.RTM_NEWNEIGH
    assert added["header"]["flags"] == REQUEST | CREATE | REPLACE
    fields = (added["family"], added["ifindex"], added["state"], added["flags"])
    assert fields == (FAMILY[entry.address.version], index, PERMANENT, 0)
    attrs = members(added)
    assert (ip_address(attrs["NDA_DST"]), attrs["NDA_LLADDR"]) == (entry.address, entry.mac)
    gone = decode(ndmsg, neigh.delete_neighbour(entry, index))
    assert (gone["header"]["type"], gone["ifindex"]) == (neigh.RTM_DELNEIGH, index)
    assert ip_address(members(gone)["NDA_DST"]) == entry.address


@given(nouns.fdb_entries, INDEXES)
def test_fdb_entries(entry: FdbEntry, index: int) -> None:
    added = decode(ndmsg, neigh.add_fdb(entry, index))
    assert added["header"]["flags"] == REQUEST | CREATE | REPLACE
    fields = (added["family"], added["ifindex"], added["state"], added["flags"])
    assert fields == (AF_BRIDGE, index, PERMANENT, SELF)
    attrs = members(added)
    assert attrs["NDA_LLADDR"] == entry.mac
    gone = decode(ndmsg, neigh.delete_fdb(entry, index))
    assert (gone["header"]["type"], gone["flags"]) == (neigh.RTM_DELNEIGH, SELF)
    assert members(gone) == {"NDA_LLADDR": entry.mac}


@given(nouns.neighbours | nouns.fdb_entries, INDEXES, st.integers(0, 0xFF))
def test_entries_as_the_kernel_tells_them(
    entry: Neighbour | FdbEntry, index: int, state: int
) -> None:
    dst = entry.dst if isinstance(entry, FdbEntry) else entry.address
    attrs = [("NDA_DST", str(dst)), ("NDA_LLADDR", entry.mac)]
    family = AF_BRIDGE if isinstance(entry, FdbEntry) else FAMILY[dst.version]
    if family == AF_BRIDGE:
        # pyroute2 writes an IPv4 address alone there; the kernel's own form is raw.
        head = neigh._NDMSG.pack(family, index, state, SELF, 0)
        mac = bytes.fromhex(entry.mac.replace(":", ""))
        body = head + wire.attribute(1, dst.packed) + wire.attribute(2, mac)
        message = Message(neigh.RTM_NEWNEIGH, 0, body)
    else:
        raw = encode(ndmsg, family=family, ifindex=index, state=state, attrs=attrs)
        message = Message(neigh.RTM_NEWNEIGH, 0, raw.body)
    assert neigh.read_entry(message, entry.link) == (index, entry, bool(state & PERMANENT))


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (6, (9999).to_bytes(2, "big"), "port 9999"),
        (7, (99).to_bytes(4, sys.byteorder), "vni 99"),
        (8, (5).to_bytes(4, sys.byteorder), "via 5"),
    ],
)
def test_an_fdb_entry_that_departs_from_the_device_is_another(
    kind: int, value: bytes, told: str
) -> None:
    mac, dst = "00:00:00:00:00:00", ip_address("192.0.2.9")
    head = neigh._NDMSG.pack(AF_BRIDGE, 3, PERMANENT, SELF, 0)
    body = head + wire.attribute(2, bytes(6)) + wire.attribute(1, dst.packed)
    usual = FdbEntry("vx", mac, dst)
    assert neigh.read_entry(Message(neigh.RTM_NEWNEIGH, 0, body), "vx")[1] == usual
    body += wire.attribute(kind, value)
    found = neigh.read_entry(Message(neigh.RTM_NEWNEIGH, 0, body), "vx")[1]
    assert found == FdbEntry("vx", mac, dst, told)
    assert key_of(found) == key_of(usual)


def test_an_fdb_entry_of_a_group_of_next_hops_leads_nowhere_we_know() -> None:
    head = neigh._NDMSG.pack(AF_BRIDGE, 3, PERMANENT, SELF, 0)
    group = wire.attribute(13, (7).to_bytes(4, sys.byteorder))
    body = head + wire.attribute(2, b"\2" * 6) + group
    found = neigh.read_entry(Message(neigh.RTM_NEWNEIGH, 0, body), "vx")[1]
    assert found == FdbEntry("vx", "02:02:02:02:02:02", ip_address(0), "nhid 7")


def test_what_is_no_entry() -> None:
    port = neigh._NDMSG.pack(AF_BRIDGE, 4, PERMANENT, 0, 0) + wire.attribute(2, b"\2" * 6)
    assert neigh.read_entry(Message(neigh.RTM_NEWNEIGH, 0, port)) == (4, None, True)


@given(INDEXES, st.sampled_from((4, 6)))
def test_questions(index: int, version: int) -> None:
    asked = decode(ndmsg, neigh.list_neighbours(version, index))
    assert (asked["header"]["type"], asked["family"]) == (neigh.RTM_GETNEIGH, FAMILY[version])
    assert members(asked) == {"NDA_IFINDEX": index}
    fdb = decode(ndmsg, neigh.list_fdb(index))
    assert (fdb["family"], members(fdb)) == (AF_BRIDGE, {"NDA_IFINDEX": index})
    routes = decode(rtmsg, rtnl.list_routes(version, 113))
    assert (routes["family"], routes["proto"], routes["table"]) == (FAMILY[version], 113, 0)


@given(nouns.routes, INDEXES)
def test_a_route_goes_by_mark_and_link(route: Route, index: int) -> None:
    found = decode(rtmsg, rtnl.delete_route(route, index))
    assert found["header"]["type"] == rtnl.RTM_DELROUTE
    assert (found["proto"], found["scope"], found["type"]) == (route.protocol, 255, 0)
    assert (found["family"], found["dst_len"]) == (FAMILY[route.dst.version], route.dst.prefixlen)
    attrs = members(found)
    dst = attrs.pop("RTA_DST", None)
    assert (dst and ip_address(dst)) == (route.dst.network_address if route.dst.prefixlen else None)
    assert attrs == without_none(
        RTA_TABLE=route.table, RTA_OIF=index, RTA_PRIORITY=route.priority or None
    )
    replaced = decode(rtmsg, rtnl.set_route(route, index, wire.NLM_F_CREATE | REPLACE))
    assert replaced["header"]["flags"] == REQUEST | CREATE | REPLACE


@given(nouns.routes, INDEXES)
def test_a_route_reads_with_its_name_and_priority(route: Route, index: int) -> None:
    found = read_any_route(told(route, index), {index: "eth0"})
    assert found is not None
    assert found.link == "eth0"
    ipv6_default = route.dst.version == 6 and route.priority == 1024
    assert found.priority == (0 if ipv6_default else route.priority)


@pytest.mark.parametrize("kind", [6, 7, 8, 9])
def test_routes_that_refuse_have_no_link(kind: int) -> None:
    route = Route(ip_network("fd00::/64"), "", table=300, protocol=113)
    found = read_any_route(told(route, 3, type=kind), {3: "eth0"})
    assert found == route


@pytest.mark.parametrize("changes", [{"type": 2}, {"flags": 0x200}], ids=["local", "cloned"])
def test_the_kernels_own_routes_are_none(changes: dict[str, Any]) -> None:
    route = Route(ip_network("10.0.0.0/24"), "")
    assert read_any_route(told(route, 3, **changes), {3: "eth0"}) is None


entries: st.SearchStrategy[Entry] = nouns.routes | nouns.neighbours | nouns.fdb_entries


@given(entries, entries)
def test_keys_differ_where_identities_do(one: Entry, other: Entry) -> None:
    assert (key_of(one) == key_of(other)) == (identity(one) == identity(other))


def identity(entry: Entry) -> tuple[object, ...]:
    if isinstance(entry, Route):
        return (Route, entry.dst, entry.table, entry.priority)
    if isinstance(entry, Neighbour):
        return (Neighbour, entry.link, entry.address)
    # To a group, and to nobody, frames may go by several ways.
    several = int(entry.mac[:2], 16) & 1 or not int(entry.mac.replace(":", ""), 16)
    return (FdbEntry, entry.link, entry.mac, entry.dst if several else None)
