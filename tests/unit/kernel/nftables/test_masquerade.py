"""Members of the masquerade sets against the packets that they are for."""

import errno
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import KernelError
from kernel.model import Element, IPAddress, IPNetwork
from kernel.netlink.socket import Netlink
from kernel.nftables.masquerade import (
    CLUSTER_SETS,
    NETWORK_SETS,
    PART,
    AddressRange,
    Masqueraded,
    apply_masquerade,
    cluster_elements,
    ensure_elements,
    hairpin_address,
    hairpin_element,
    is_covered,
    masquerade_changes,
    masquerade_elements,
    read_kept,
    read_sources,
)
from kernel.nftables.ruleset import FAMILIES, PARTS, remove_empty_tables
from kernel.nftables.set_messages import read_sets
from kernel.nftables.table import load, read_rules, table_is_present
from tests.unit.kernel.strategies import crowded_networks, ip_addresses, names, versions

Groups = list[Masqueraded]


def is_member(elements: frozenset[Element], set_name: str, *fields: IPAddress) -> bool:
    """Whether an nft set of intervals holds the concatenated fields (each within its interval)."""
    width = len(fields[0].packed)
    for element in elements:
        if element.set_name != set_name or element.key_end is None:
            continue
        parts = range(0, len(element.key), width)
        spans = [(element.key[i : i + width], element.key_end[i : i + width]) for i in parts]
        if all(a <= f.packed <= b for (a, b), f in zip(spans, fields, strict=True)):
            return True
    return False


def is_masqueraded(elements: frozenset[Element], src: IPAddress, dst: IPAddress) -> bool:
    """What the table's rule does: ip saddr @masquerade ip saddr . ip daddr != @internal."""
    version = src.version
    inside = is_member(elements, f"internal{version}", src, dst)
    return is_member(elements, f"masquerade{version}", src) and not inside


def widened(prefix: IPNetwork, groups: Groups) -> IPNetwork:
    """The largest prefix of any network around this one: sets cannot hold both."""
    return max(
        (p for group in groups for p in group.prefixes if contains(p, prefix)),
        key=lambda p: p.num_addresses,
    )


def contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    return (
        outer.version == inner.version
        and outer.network_address <= inner.network_address  # type: ignore[operator]
        and outer.broadcast_address >= inner.broadcast_address  # type: ignore[operator]
    )


def naive(groups: Groups, src: IPAddress, dst: IPAddress) -> bool:
    """Masqueraded iff the source is of a network's pods, and the destination in no network that has
    the source, nor where that keeps its address."""
    reached = [[widened(prefix, groups) for prefix in group.prefixes] for group in groups]
    if not any(int(first) <= int(src) <= int(last) for g in groups for first, last in g.ranges):
        return False
    return not any(
        any(src in prefix for prefix in prefixes)
        and any(dst in prefix for prefix in (*prefixes, *group.kept))
        for group, prefixes in zip(groups, reached, strict=True)
    )


def corners(groups: Groups, version: int) -> list[IPAddress]:
    """The addresses at which anything can change: both ends of each range, and beyond them."""
    ends = {
        int(end) + step
        for group in groups
        for ends in (*map(ends_of, (*group.prefixes, *group.kept)), *group.ranges)
        for end in ends
        if end.version == version
        for step in (-1, 0, 1)
    }
    make = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}[version]
    return [make[number] for number in sorted(ends)]


def ends_of(prefix: IPNetwork) -> AddressRange:
    return prefix.network_address, prefix.broadcast_address


def assert_as_naive(groups: Groups, version: int) -> None:
    elements = masquerade_elements(groups)
    edges = corners(groups, version)
    for src in edges:
        for dst in edges:
            wanted = naive(groups, src, dst)
            assert is_masqueraded(elements, src, dst) == wanted, f"{src} to {dst}"


def groups_of(version: int) -> st.SearchStrategy[Groups]:
    prefixes = st.lists(crowded_networks(version), max_size=3).map(tuple)
    address = crowded_networks(version).map(lambda prefix: prefix.broadcast_address)
    pair = st.lists(address, min_size=2, max_size=2).map(lambda ends: tuple(sorted(ends, key=int)))
    sources = st.none() | st.lists(pair, max_size=3).map(tuple)
    return st.lists(st.builds(Masqueraded, prefixes, prefixes, sources), max_size=3)


@settings(max_examples=150)
@given(versions.flatmap(lambda v: st.tuples(groups_of(v), st.just(v))))
def test_packets_that_leave_their_network_and_only_those(case: tuple[Groups, int]) -> None:
    assert_as_naive(*case)


@settings(max_examples=50)
@given(groups_of(4), groups_of(6))
def test_families_do_not_meet(four: Groups, six: Groups) -> None:
    together = masquerade_elements([*four, *six])
    assert together == masquerade_elements(four) | masquerade_elements(six)
    pairs = [
        Masqueraded(a.prefixes + b.prefixes, a.kept + b.kept, (*a.ranges, *b.ranges))
        for a, b in zip(four, six, strict=False)
    ]
    mixed = masquerade_elements(pairs + four[len(six) :] + six[len(four) :])
    assert mixed == together


@settings(max_examples=150)
@given(versions.flatmap(groups_of))
def test_no_two_members_of_a_set_overlap(groups: Groups) -> None:
    """The kernel refuses a member that overlaps another (net/netfilter/nft_set_pipapo.c)."""
    elements = masquerade_elements(groups)
    assert {e.set_name for e in elements} <= {a_set.name for a_set in NETWORK_SETS}
    for one in elements:
        for other in elements:
            if one != other and one.set_name == other.set_name:
                assert not overlap(one, other), f"{one} {other}"


def overlap(one: Element, other: Element) -> bool:
    assert one.key_end is not None
    assert other.key_end is not None
    width = 4 if one.set_name.endswith("4") else 16
    return all(
        one.key[i : i + width] <= other.key_end[i : i + width]
        and other.key[i : i + width] <= one.key_end[i : i + width]
        for i in range(0, len(one.key), width)
    )


@settings(max_examples=50)
@given(versions.flatmap(groups_of).flatmap(lambda g: st.tuples(st.just(g), st.permutations(g))))
def test_the_order_of_networks_does_not_matter(case: tuple[Groups, Groups]) -> None:
    assert masquerade_elements(case[0]) == masquerade_elements(case[1])


def net(
    *prefixes: str, kept: Sequence[str] = (), sources: Sequence[str] | None = None
) -> Masqueraded:
    """sources: ranges as first-last, or single addresses."""
    found = None if sources is None else tuple(map(range_of, sources))
    return Masqueraded(tuple(map(ip_network, prefixes)), tuple(map(ip_network, kept)), found)


def range_of(text: str) -> AddressRange:
    first, _, last = text.partition("-")
    return ip_address(first), ip_address(last or first)


@pytest.mark.parametrize(
    ("groups", "src", "dst", "masqueraded"),
    [
        ([net("10.0.0.0/24")], "10.0.0.2", "192.0.2.1", True),
        ([net("10.0.0.0/24")], "10.0.0.2", "10.0.0.3", False),
        ([net("10.0.0.0/24")], "192.0.2.1", "10.0.0.2", False),
        ([net("10.0.0.0/24", "10.9.0.0/24")], "10.0.0.2", "10.9.0.3", False),
        ([net("10.0.0.0/24"), net("10.9.0.0/24")], "10.0.0.2", "10.9.0.3", True),
        # Neighbours are not one network, though their prefixes make up a larger one.
        ([net("10.0.0.0/24"), net("10.0.1.0/24")], "10.0.0.2", "10.0.1.3", True),
        ([net("10.0.0.0/24", "10.0.1.0/24")], "10.0.0.2", "10.0.1.3", False),
        ([net("fd00::/64"), net("fd00:0:0:1::/64")], "fd00::2", "fd00:0:0:1::3", True),
        ([net("0.0.0.0/0")], "10.0.0.2", "192.0.2.1", False),
        # What is no pod keeps its address.
        ([net("10.0.0.0/24", sources=["10.0.0.5-10.0.0.9"])], "10.0.0.5", "192.0.2.1", True),
        ([net("10.0.0.0/24", sources=["10.0.0.5-10.0.0.9"])], "10.0.0.4", "192.0.2.1", False),
        ([net("10.0.0.0/24", sources=["10.0.0.5-10.0.0.9"])], "10.0.0.5", "10.0.0.4", False),
        ([net("10.0.0.0/24", sources=[])], "10.0.0.5", "192.0.2.1", False),
        ([net("10.0.0.0/24", kept=["192.0.2.0/24"])], "10.0.0.2", "192.0.2.1", False),
        ([net("10.0.0.0/24", kept=["192.0.2.0/24"])], "10.0.0.2", "192.0.3.1", True),
        ([net("10.0.0.0/24", kept=["10.0.0.0/8", "10.0.0.0/25"])], "10.0.0.2", "10.0.0.3", False),
        (
            [net("10.0.0.0/24", kept=["192.0.2.0/24"]), net("10.9.0.0/24")],
            "10.9.0.2",
            "192.0.2.1",
            True,
        ),
    ],
)
def test_cases(groups: Groups, src: str, dst: str, masqueraded: bool) -> None:
    elements = masquerade_elements(groups)
    assert is_masqueraded(elements, ip_address(src), ip_address(dst)) == masqueraded


@given(names, ip_addresses)
def test_a_hairpin_element_names_link_and_address(link: str, address: IPAddress) -> None:
    element = hairpin_element(link, address)
    assert (element.family, element.set_name) == ("inet", f"hairpin{address.version}")
    assert element.key[:16].rstrip(b"\0").decode() == link
    assert element.key[16:] == address.packed * 2
    assert hairpin_address(element) == address


def test_other_elements_are_of_no_address() -> None:
    [element] = cluster_elements([(ip_address("10.0.0.0"), ip_address("10.0.0.9"))])
    assert hairpin_address(element) is None


@pytest.mark.parametrize("last", ["10.0.0.9", "10.0.0.0"])
def test_cluster_elements(last: str) -> None:
    [four, six] = sorted(
        cluster_elements(
            [
                (ip_address("10.0.0.0"), ip_address(last)),
                (ip_address("fd00::"), ip_address("fd00::9")),
            ]
        ),
        key=lambda e: e.set_name,
    )
    assert (four.set_name, six.set_name) == ("cluster4", "cluster6")
    assert (four.key, four.key_end) == (bytes((10, 0, 0, 0)), ip_address(last).packed)
    assert four.tree
    assert six.key_end == ip_address("fd00::9").packed


@pytest.mark.parametrize(
    ("desired", "observed", "covered"),
    [
        ("10.0.0.0/24", ["10.0.0.0/24"], True),
        ("10.0.0.0/24", ["10.0.0.0/16"], True),
        ("10.0.0.0/24", ["10.0.0.0/25"], False),
        ("10.0.1.0/24", ["10.0.0.0/24", "10.0.0.0/16"], True),
        ("10.0.1.0/24", ["10.0.0.0/24"], False),
        ("10.0.0.0/24", ["10.0.1.0/24"], False),
        ("10.0.0.0/24", [], False),
        ("fd00::/64", ["fd00::/48"], True),
        ("fd00::/48", ["fd00::/64"], False),
    ],
)
def test_an_interval_around_covers(desired: str, observed: list[str], covered: bool) -> None:
    for name in ("masquerade", "internal"):
        [wanted] = elements_of(name, [net(desired)])
        # Each network by itself: together the widest would stand for all.
        present = [e for prefix in observed for e in elements_of(name, [net(prefix)])]
        assert is_covered(wanted, present) == covered


def test_both_fields_of_a_pair_must_be_covered() -> None:
    pairs = elements_of("internal", [net("10.0.0.0/24", "10.9.0.0/24")])
    mixed = next(e for e in pairs if e.key[:4] != e.key[4:])
    same = [e for e in pairs if e.key[:4] == e.key[4:]]
    assert not is_covered(mixed, same)
    assert is_covered(mixed, [*same, mixed])


def test_what_is_no_interval_is_covered_by_itself_alone() -> None:
    one, other = (hairpin_element(name, ip_address("10.0.0.2")) for name in ("a", "b"))
    assert is_covered(one, [other, one])
    assert not is_covered(one, [other])


def elements_of(name: str, groups: Groups) -> list[Element]:
    return [e for e in masquerade_elements(groups) if e.set_name.startswith(name)]


def test_sets_are_brought_to_what_networks_need(nl: Netlink) -> None:
    one, two = [net("10.1.0.0/24", "fd00:1::/64")], [net("10.2.0.0/24")]
    assert masquerade_changes([]) == ()
    assert {c.desired for c in masquerade_changes(one)} == masquerade_elements(one)
    apply_masquerade([])
    assert not table_is_present(nl, "inet"), "nothing is masqueraded"
    apply_masquerade(one)
    assert masquerade_changes(one) == ()
    assert {(c.desired is None, c.observed is None) for c in masquerade_changes(two)} == {
        (True, False),
        (False, True),
    }
    apply_masquerade(two)
    assert read_sets(nl, NETWORK_SETS) == masquerade_elements(two)
    apply_masquerade([])
    assert read_sets(nl, NETWORK_SETS) == frozenset()


@pytest.mark.parametrize("kept", [["192.0.2.0/24"], ["10.0.0.0/8", "192.0.2.0/25", "fd00::/8"]])
def test_where_others_keep_their_address_stays(nl: Netlink, kept: list[str]) -> None:
    """Of networks in another store the prefixes alone are known."""
    theirs = net("10.1.0.0/24", "fd00:1::/64", kept=kept)
    known, mine = Masqueraded(theirs.prefixes), net("10.2.0.0/24", kept=["198.51.100.0/24"])
    apply_masquerade([theirs])
    assert set(map(str, read_kept(theirs.prefixes))) == set(kept)
    assert {c.observed for c in masquerade_changes([mine], [known])} == {None}
    apply_masquerade([mine], [known])
    assert masquerade_changes([mine], [known]) == ()
    assert read_sets(nl, NETWORK_SETS) == masquerade_elements([mine, theirs])
    apply_masquerade([], [known])
    assert read_sets(nl, NETWORK_SETS) == masquerade_elements([theirs])
    apply_masquerade([mine])
    assert read_sets(nl, NETWORK_SETS) == masquerade_elements([mine])


def test_sources_are_read(nl: Netlink) -> None:
    fields = ["10.1.0.1-10.1.0.99", "10.1.0.120", "fd00::1-fd00::f"]
    apply_masquerade([net("10.1.0.0/24", "fd00::/64", sources=fields)])
    asked = ["10.1.0.99", "10.1.0.120", "10.1.0.100", "fd00::5", "10.1.0.0"]
    assert read_sources(map(ip_address, asked)) == tuple(
        map(range_of, ["10.1.0.1-10.1.0.99", "10.1.0.120", "10.1.0.100", fields[2], "10.1.0.0"])
    )


def test_what_is_masqueraded_for_others_stays(nl: Netlink) -> None:
    """Of networks in another store the pods' addresses are known, not their ranges."""
    theirs = net("10.1.0.0/24", sources=["10.1.0.1-10.1.0.99"])
    known = net("10.1.0.0/24", sources=["10.1.0.5", "10.1.0.120"])
    mine = net("10.2.0.0/24", sources=["10.2.0.7"])
    apply_masquerade([theirs])
    apply_masquerade([mine], [known])
    assert masquerade_changes([mine], [known]) == ()
    both = net("10.1.0.0/24", sources=["10.1.0.1-10.1.0.99", "10.1.0.120"])
    assert read_sets(nl, NETWORK_SETS) == masquerade_elements([mine, both])
    apply_masquerade([mine])
    assert read_sets(nl, NETWORK_SETS) == masquerade_elements([mine])


def test_tables_stay_while_the_cluster_has_elements(nl: Netlink) -> None:
    wanted = cluster_elements([(ip_address("10.0.0.0"), ip_address("10.0.0.9"))])
    with pytest.raises(KernelError) as caught:
        ensure_elements(wanted, CLUSTER_SETS)
    assert caught.value.errno == errno.ENOENT
    assert ensure_elements(frozenset(), CLUSTER_SETS) == ()
    load(PART)
    assert [change.desired for change in ensure_elements(wanted, CLUSTER_SETS)] == list(wanted)
    assert ensure_elements(wanted, CLUSTER_SETS) == ()
    load(*PARTS.values())
    remove_empty_tables()
    assert read_sets(nl, CLUSTER_SETS) == wanted
    assert [family for family in FAMILIES if table_is_present(nl, family)] == ["inet"]
    assert [rules for part in PARTS.values() for rules in read_rules(nl, part.family)] == []
    assert [change.observed for change in ensure_elements(frozenset(), CLUSTER_SETS)] == list(
        wanted
    )
    remove_empty_tables()
    assert not table_is_present(nl, "inet")
