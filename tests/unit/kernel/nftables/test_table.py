"""Set members as netlink messages: what is encoded is what is read back."""

import random
from ipaddress import collapse_addresses, ip_network
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.model import Element, IPNetwork
from kernel.netlink.codec import Message, attributes, string
from kernel.nftables import table as nft
from tests.unit.kernel.strategies import crowded_networks, ip_networks, macs, names, versions

ENDS_OF_THE_WORLD = ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "255.255.255.255/32", "::/0")


def tree_element(prefix: IPNetwork) -> Element:
    [element] = [
        e for e in nft.masquerade_elements([[prefix]]) if e.set_name.startswith("masquerade")
    ]
    return element


def told(elements: list[Element], order: random.Random) -> list[dict[int, bytes]]:
    """The members as a dump lists them; the kernel's order is its own."""
    messages = [nft._element_message(nft._NEWSETELEM, element) for element in elements]
    items = [item for message in messages for item in nft._list_items(message)]
    order.shuffle(items)
    return items


@settings(max_examples=200)
@given(
    versions.flatmap(lambda v: st.lists(crowded_networks(v, 6), max_size=6)),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_intervals_of_a_tree(prefixes: list[IPNetwork], join: bool, order: random.Random) -> None:
    """Starts and ends are members of their own; neighbours share a boundary."""
    apart = [
        p
        for p in set(prefixes)
        if not any(p != q and p.subnet_of(q) for q in prefixes)  # type: ignore[arg-type]
    ]
    disjoint = list(collapse_addresses(apart)) if join else apart  # type: ignore[type-var]
    elements = [tree_element(prefix) for prefix in disjoint]
    name = elements[0].set_name if elements else "masquerade4"
    assert set(nft._read_tree("inet", name, told(elements, order))) == set(elements)


@given(st.sampled_from(ENDS_OF_THE_WORLD) | ip_networks.map(str), st.randoms())
def test_any_single_interval_of_a_tree(text: str, order: random.Random) -> None:
    element = tree_element(ip_network(text))
    assert nft._read_tree("inet", element.set_name, told([element], order)) == [element]


@given(
    versions.flatmap(lambda v: st.lists(st.lists(crowded_networks(v), max_size=3), max_size=3)),
    st.randoms(use_true_random=False),
)
def test_members_of_concatenated_sets(groups: list[list[IPNetwork]], order: random.Random) -> None:
    elements = {e for e in nft.masquerade_elements(groups) if e.set_name.startswith("internal")}
    for name in {element.set_name for element in elements}:
        mine = [element for element in elements if element.set_name == name]
        assert set(nft._read_flat("inet", name, told(mine, order))) == set(mine)


@given(names, macs, st.randoms(use_true_random=False))
def test_members_for_a_checked_port(port: str, mac: str, order: random.Random) -> None:
    """Fields of a concatenation are padded to 32 bits, interface names to 16 bytes."""
    allowed, checked = nft.spoof_check_elements(port, mac)
    assert (allowed.set_name, checked.set_name) == ("allowed_macs", "checked_ports")
    assert allowed.key == checked.key + bytes.fromhex(mac.replace(":", "")) + b"\0\0"
    assert string(checked.key) == port
    assert len(checked.key) == 16
    for element in (allowed, checked):
        assert nft._read_flat("bridge", element.set_name, told([element], order)) == [element]


@given(names, macs)
def test_a_port_is_allowed_before_it_is_checked_and_after(port: str, mac: str) -> None:
    elements = nft.spoof_check_elements(port, mac)
    for given_order in (elements, elements[::-1]):
        ordered = [e.set_name for e in nft._ordered(given_order)]
        assert ordered == ["allowed_macs", "checked_ports"]


@given(names, st.sampled_from(("inet", "bridge")), st.binary(min_size=4, max_size=4))
def test_a_message_names_its_table_and_set(name: str, family: str, key: bytes) -> None:
    for kind, flags in ((nft._NEWSETELEM, 0x400), (nft._DELSETELEM, 0)):
        message = nft._element_message(kind, Element(family, name, key))
        assert (message.type, message.flags) == (kind, flags)
        assert message.body[0] == {"inet": 1, "bridge": 7}[family]
        found = attributes(message.body, 4)
        assert (string(found[1]), string(found[2])) == ("podwire", name)
        assert f"nft set {name}" in str(message)


@given(st.binary(max_size=120))
def test_garbage_in_a_dump_is_no_member(data: bytes) -> None:
    items = nft._list_items(Message(0, 0, data))
    keys = [element.key for element in nft._read_flat("inet", "hairpin4", items)]
    assert all(key in data for key in keys)


@given(versions.flatmap(lambda v: st.lists(crowded_networks(v), min_size=2, max_size=4)))
def test_the_end_of_an_interval_is_the_next_boundary(prefixes: list[IPNetwork]) -> None:
    ends = sorted({p.broadcast_address.packed for p in prefixes})
    for start, after in pairwise(ends):
        found = int.from_bytes(nft._end_after(start, ends))
        assert found == int.from_bytes(after) - 1
    assert nft._end_after(ends[-1], ends) == b"\xff" * len(ends[-1])
