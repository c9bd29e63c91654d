"""Our neighbour and FDB messages as pyroute2 reads them, and the kernel's as we read them."""

import sys
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # type: ignore[import-untyped]

from kernel.diff import key_of
from kernel.model import FdbEntry, Neighbour
from kernel.netlink import codec, neighbours
from kernel.netlink.codec import Message
from tests.unit.kernel import strategies as nouns
from tests.unit.kernel.netlink.pyroute2_codec import (
    CREATE,
    FAMILY,
    INDEXES,
    REQUEST,
    decode,
    encode,
    members,
)

REPLACE = codec.NLM_F_REPLACE
AF_BRIDGE, PERMANENT, SELF = 7, 0x80, 2


@given(nouns.neighbours, INDEXES)
def test_neighbours(entry: Neighbour, index: int) -> None:
    added = decode(ndmsg, neighbours.add_neighbour(entry, index))
    assert added["header"]["type"] == neighbours.RTM_NEWNEIGH
    assert added["header"]["flags"] == REQUEST | CREATE | REPLACE
    fields = (added["family"], added["ifindex"], added["state"], added["flags"])
    assert fields == (FAMILY[entry.address.version], index, PERMANENT, 0)
    attrs = members(added)
    assert (ip_address(attrs["NDA_DST"]), attrs["NDA_LLADDR"]) == (entry.address, entry.mac)
    gone = decode(ndmsg, neighbours.delete_neighbour(entry, index))
    assert (gone["header"]["type"], gone["ifindex"]) == (neighbours.RTM_DELNEIGH, index)
    assert ip_address(members(gone)["NDA_DST"]) == entry.address


@given(nouns.fdb_entries, INDEXES)
def test_fdb_entries(entry: FdbEntry, index: int) -> None:
    added = decode(ndmsg, neighbours.add_fdb(entry, index))
    assert added["header"]["flags"] == REQUEST | CREATE | REPLACE
    fields = (added["family"], added["ifindex"], added["state"], added["flags"])
    assert fields == (AF_BRIDGE, index, PERMANENT, SELF)
    attrs = members(added)
    assert attrs["NDA_LLADDR"] == entry.mac
    gone = decode(ndmsg, neighbours.delete_fdb(entry, index))
    assert (gone["header"]["type"], gone["flags"]) == (neighbours.RTM_DELNEIGH, SELF)
    assert members(gone) == {"NDA_LLADDR": entry.mac}


@given(nouns.neighbours | nouns.fdb_entries, INDEXES, st.integers(0, 0xFF))
def test_entries_as_the_kernel_reports_them(
    entry: Neighbour | FdbEntry, index: int, state: int
) -> None:
    dst = entry.dst if isinstance(entry, FdbEntry) else entry.address
    attrs = [("NDA_DST", str(dst)), ("NDA_LLADDR", entry.mac)]
    family = AF_BRIDGE if isinstance(entry, FdbEntry) else FAMILY[dst.version]
    if family == AF_BRIDGE:
        # pyroute2 writes an IPv4 address alone there; the kernel's own form is raw.
        head = neighbours._NDMSG.pack(family, index, state, SELF, 0)
        mac = bytes.fromhex(entry.mac.replace(":", ""))
        body = head + codec.attribute(1, dst.packed) + codec.attribute(2, mac)
        message = Message(neighbours.RTM_NEWNEIGH, 0, body)
    else:
        raw = encode(ndmsg, family=family, ifindex=index, state=state, attrs=attrs)
        message = Message(neighbours.RTM_NEWNEIGH, 0, raw.body)
    assert neighbours.parse_entry(message, entry.link) == (index, entry, bool(state & PERMANENT))


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
    head = neighbours._NDMSG.pack(AF_BRIDGE, 3, PERMANENT, SELF, 0)
    body = head + codec.attribute(2, bytes(6)) + codec.attribute(1, dst.packed)
    usual = FdbEntry("vx", mac, dst)
    assert neighbours.parse_entry(Message(neighbours.RTM_NEWNEIGH, 0, body), "vx")[1] == usual
    body += codec.attribute(kind, value)
    found = neighbours.parse_entry(Message(neighbours.RTM_NEWNEIGH, 0, body), "vx")[1]
    assert found == FdbEntry("vx", mac, dst, told)
    assert key_of(found) == key_of(usual)


def test_an_fdb_entry_of_a_group_of_next_hops_leads_nowhere_we_know() -> None:
    head = neighbours._NDMSG.pack(AF_BRIDGE, 3, PERMANENT, SELF, 0)
    group = codec.attribute(13, (7).to_bytes(4, sys.byteorder))
    body = head + codec.attribute(2, b"\2" * 6) + group
    found = neighbours.parse_entry(Message(neighbours.RTM_NEWNEIGH, 0, body), "vx")[1]
    assert found == FdbEntry("vx", "02:02:02:02:02:02", ip_address(0), "nhid 7")


def test_what_is_no_entry() -> None:
    port = neighbours._NDMSG.pack(AF_BRIDGE, 4, PERMANENT, 0, 0) + codec.attribute(2, b"\2" * 6)
    assert neighbours.parse_entry(Message(neighbours.RTM_NEWNEIGH, 0, port)) == (4, None, True)


@given(INDEXES, st.sampled_from((4, 6)))
def test_dumps_name_their_link(index: int, version: int) -> None:
    asked = decode(ndmsg, neighbours.list_neighbours(version, index))
    assert (asked["header"]["type"], asked["family"]) == (neighbours.RTM_GETNEIGH, FAMILY[version])
    assert members(asked) == {"NDA_IFINDEX": index}
    fdb = decode(ndmsg, neighbours.list_fdb(index))
    assert (fdb["family"], members(fdb)) == (AF_BRIDGE, {"NDA_IFINDEX": index})
