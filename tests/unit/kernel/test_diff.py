"""The diff against a naive reference, on states so small that nearly everything collides."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.diff import Change, Fault, Noun, by_key, compare, diff, diff_space, key_of
from kernel.model import (
    Address,
    ChainRules,
    Element,
    Entry,
    FdbEntry,
    Link,
    Neighbour,
    Port,
    Redirect,
    Route,
    Space,
    Sysctl,
    TokenBucket,
    Vxlan,
)
from tests.unit.kernel import strategies as nouns

NAMES = st.sampled_from(("eth0", "eth1"))
SWITCH = st.booleans()
PORTS = st.none() | st.builds(Port, st.sampled_from(("cni0", "cni1")), SWITCH, SWITCH)
MACS = st.sampled_from((None, "02:00:00:00:00:01", "02:00:00:00:00:02"))
LINKS = st.builds(
    Link,
    NAMES,
    st.sampled_from(("veth", "bridge")),
    MACS,
    st.sampled_from((None, 0, 1400, 1500)),
    SWITCH,
    st.none() | st.just("an alias"),
    PORTS,
    SWITCH,
    st.integers(0, 2),
    arp=st.none() | SWITCH,
)
INTERFACES = st.sampled_from(
    [ip_interface(a) for a in ("10.0.0.2/24", "10.0.0.2/25", "fd00::2/64")]
)
ADDRESSES = st.builds(Address, NAMES, INTERFACES, SWITCH)
GATEWAYS = st.sampled_from([None, ip_address("10.0.0.1"), ip_address("10.0.0.9")])
DESTINATIONS = st.sampled_from([ip_network(n) for n in ("0.0.0.0/0", "10.1.0.0/16", "::/0")])
FEW = st.integers(0, 1)
ROUTES = st.builds(
    Route,
    DESTINATIONS,
    NAMES,
    GATEWAYS,
    table=st.sampled_from((254, 1000)),
    priority=FEW,
    mtu=FEW,
    advmss=FEW,
)
SYSCTLS = st.builds(Sysctl, st.sampled_from("ab"), st.sampled_from("01"), SWITCH)


def spaces() -> st.SearchStrategy[Space]:
    return st.builds(
        Space,
        st.lists(LINKS, max_size=2, unique_by=lambda link: link.name).map(tuple),
        st.lists(ADDRESSES, max_size=3, unique_by=key_of).map(tuple),
        st.lists(ROUTES, max_size=4, unique=True).map(tuple),
        st.lists(SYSCTLS, max_size=2, unique_by=lambda setting: setting.path).map(tuple),
    )


def naive(want: Space, have: Space) -> Counter[Noun]:
    """How many faults each desired noun has; one that is missing has one."""
    found: Counter[Noun] = Counter()
    for link in want.links:
        found[link] += naive_link(link, have)
    for address in want.addresses:
        there = [a for a in have.addresses if a.link == address.link]
        found[address] += all(a.address != address.address for a in there)
    for route in want.routes:
        others = [r for r in have.routes if (r.dst, r.table) == (route.dst, route.table)]
        found[route] += min((naive_route(route, other) for other in others), default=1)
    for setting in want.sysctls:
        values = [s.value for s in have.sysctls if s.path == setting.path]
        found[setting] += setting.required and values != [setting.value]
    return +found


def naive_route(want: Route, have: Route) -> int:
    wrong = [want.link != have.link, want.via != have.via]
    wrong += [want.priority > 0 and have.priority != want.priority]
    wrong += [want.mtu > 0 and have.mtu != want.mtu, want.advmss > 0 and have.advmss != want.advmss]
    return sum(wrong)


def naive_link(want: Link, have: Space) -> int:
    named = [link for link in have.links if link.name == want.name]
    if not named:
        return 1
    [link] = named
    wrong = [
        link.kind != want.kind,
        want.up and not link.up,
        want.promisc and not link.promisc,
        want.mac is not None and link.mac != want.mac,
        want.mtu not in (None, 0, link.mtu),
        want.alias is not None and link.alias != want.alias,
        want.arp is not None and link.arp is not want.arp,
    ]
    if want.port and (link.port is None or link.port.bridge != want.port.bridge):
        wrong.append(True)
    elif want.port and link.port:
        wrong.append(link.port.hairpin != want.port.hairpin)
        wrong.append(link.port.isolated != want.port.isolated)
    return sum(wrong)


@settings(max_examples=300)
@given(spaces(), spaces())
def test_it_finds_what_a_naive_comparison_finds(want: Space, have: Space) -> None:
    found: Counter[Noun] = Counter()
    for change in diff_space(want, have):
        assert change.desired is not None
        assert (change.observed is None) == (change.faults == ())
        found[change.desired] += len(change.faults) or 1
        assert all(fault.desired != fault.observed for fault in change.faults)
    assert found == naive(want, have)


@given(spaces())
def test_nothing_differs_from_itself(space: Space) -> None:
    assert diff_space(space, space) == ()


@given(spaces(), spaces())
def test_what_is_there_beyond_the_desired_is_no_difference(want: Space, more: Space) -> None:
    names = {link.name for link in want.links}
    paths = {setting.path for setting in want.sysctls}
    have = Space(
        (*want.links, *(link for link in more.links if link.name not in names)),
        (*more.addresses, *want.addresses),
        (*more.routes, *want.routes),
        (*want.sysctls, *(s for s in more.sysctls if s.path not in paths)),
    )
    assert diff_space(want, have) == ()


@given(spaces())
def test_everything_is_missing_where_nothing_is(want: Space) -> None:
    wanted = Counter(
        (
            *want.links,
            *want.addresses,
            *want.routes,
            *(setting for setting in want.sysctls if setting.required),
        )
    )
    changes = diff_space(want, Space())
    assert Counter(change.desired for change in changes) == wanted
    assert {change.observed for change in changes} <= {None}


@pytest.mark.parametrize(
    ("gateways", "expected"),
    [
        (["10.0.0.1"], None),
        (["10.0.0.9", "10.0.0.1"], None),
        (["10.0.0.9"], "10.0.0.9"),
        (["10.0.0.8", "10.0.0.9"], "10.0.0.8"),
    ],
)
def test_of_several_routes_the_nearest_counts(gateways: list[str], expected: str | None) -> None:
    route = Route(ip_network("0.0.0.0/0"), "eth0", ip_address("10.0.0.1"), mtu=1400)
    have = tuple(replace(route, via=ip_address(via)) for via in gateways)
    # A route that differs in more is farther.
    strange = replace(route, link="eth1", via=None, mtu=0)
    changes = diff_space(Space(routes=(route,)), Space(routes=(strange, *have)))
    assert [c.observed and c.observed.via for c in changes if isinstance(c.observed, Route)] == (
        [ip_address(expected)] if expected else []
    )


MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
TUNNEL = Vxlan(7, 4789, ip_address("192.0.2.1"), "eth0")
DEVICE = Link("vx", "vxlan", MAC, 1450, port=Port(""), vxlan=TUNNEL, arp=True)


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"index": 9, "port": None, "promisc": True, "alias": "x"}, []),
        ({"port": Port("")}, []),
        ({"kind": "dummy", "vxlan": None}, [Fault("kind", "vxlan", "dummy")]),
        ({"kind": "", "vxlan": TUNNEL}, [Fault("kind", "vxlan", "")]),
        ({"vxlan": None}, [Fault("vxlan", TUNNEL, None)]),
        ({"vxlan": replace(TUNNEL, vni=8)}, [Fault("vni", 7, 8)]),
        ({"vxlan": replace(TUNNEL, port=1)}, [Fault("port", 4789, 1)]),
        (
            {"vxlan": replace(TUNNEL, uplink="eth1", learning=True)},
            [Fault("uplink", "eth0", "eth1"), Fault("learning", False, True)],
        ),
        ({"vxlan": replace(TUNNEL, udp_checksum=True)}, [Fault("udp_checksum", False, True)]),
        ({"port": Port("br0")}, [Fault("master", "", "br0")]),
        ({"arp": False}, [Fault("arp", True, False)]),
        ({"up": False, "mtu": 1}, [Fault("up", True, False), Fault("mtu", 1450, 1)]),
    ],
)
def test_traits_of_a_vxlan_device(changes: dict[str, object], faults: list[Fault]) -> None:
    observed = replace(DEVICE, **changes)  # type: ignore[arg-type]
    change = compare(DEVICE, observed)
    assert (change.faults if change else ()) == tuple(faults)
    if change:
        assert (change.desired, change.observed) == (DEVICE, observed)


def test_a_link_of_another_kind_needs_no_tunnel() -> None:
    veth = Link("eth0")
    assert compare(veth, replace(veth, vxlan=TUNNEL)) is None


def test_a_change_is_about_its_object_and_some_traits() -> None:
    change = compare(DEVICE, replace(DEVICE, mtu=1))
    assert change is not None
    assert change.noun is DEVICE
    assert change.concerns(["mac", "mtu"])
    assert not change.concerns(["mac"])
    stray: Change[Link] = Change(None, DEVICE)
    assert stray.noun is DEVICE
    assert not stray.concerns(["mtu"])


@pytest.mark.parametrize(
    ("desired", "observed", "differs"),
    [
        (Sysctl("a", "1"), Sysctl("a", "1"), False),
        (Sysctl("a", "1"), Sysctl("a", "0"), True),
        (Sysctl("a", "1"), None, True),
        (Sysctl("a", "1", required=False), None, False),
        (Sysctl("a", "1", required=False), Sysctl("a", "0"), True),
        (Sysctl("a", "1", required=False), Sysctl("a", "1"), False),
        (None, Sysctl("a", "1"), True),
        (None, None, False),
    ],
)
def test_a_setting_that_is_not_required_may_be_absent(
    desired: Sysctl | None, observed: Sysctl | None, differs: bool
) -> None:
    change = compare(desired, observed)
    assert (change is not None) == differs
    if change:
        assert (change.desired, change.observed) == (desired, observed)


GATEWAY = ip_address("10.0.0.1")
PREFIX = ip_network("10.1.0.0/16")
PEER: list[tuple[Entry | ChainRules, dict[str, object]]] = [
    (
        Route(PREFIX, "vx", GATEWAY, protocol=113),
        {
            "link": "eth0", "via": None, "src": GATEWAY, "scope": 253, "mtu": 1400, "advmss": 1,
            "protocol": 3, "onlink": True, "local": True,
        },
    ),
    (Neighbour("vx", GATEWAY, MAC), {"mac": OTHER_MAC}),
    (FdbEntry("vx", MAC, GATEWAY), {"dst": ip_address("10.0.0.2"), "more": "port 1"}),
    (ChainRules("inet", "postrouting", ("a", "b")), {"digests": ("b", "a")}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("noun", "trait", "value"),
    [(noun, trait, value) for noun, traits in PEER for trait, value in traits.items()],
)
def test_every_trait_of_a_peers_entry_counts(
    noun: Entry | ChainRules, trait: str, value: object
) -> None:
    observed = replace(noun, **{trait: value})  # type: ignore[arg-type]
    wanted = getattr(noun, trait)
    assert compare(noun, observed) == Change(noun, observed, (Fault(trait, wanted, value),))
    assert compare(noun, replace(noun)) is None
    assert key_of(noun) == key_of(observed)


def test_an_address_is_as_desired_however_its_route_came() -> None:
    address = Address("eth0", ip_interface("10.0.0.2/24"))
    assert compare(address, replace(address, prefix_route=False)) is None


KEYED: list[Noun] = [
    *(noun for noun, _traits in PEER),
    Link("eth0"),
    Address("eth0", ip_interface("10.0.0.2/24")),
    Address("eth0", ip_interface("10.0.0.2/25")),
    Address("eth1", ip_interface("10.0.0.2/24")),
    Sysctl("eth0", "1"),
    Element("inet", "hairpin4", b"k"),
    Element("bridge", "hairpin4", b"k"),
    Element("inet", "hairpin4", b"k", b"l"),
    ChainRules("bridge", "postrouting"),
    ChainRules("inet", "prerouting"),
    TokenBucket("eth0", 1, 1, 1),
    TokenBucket("eth1", 1, 1, 1),
    Redirect("eth0", "eth1"),
    Redirect("eth1", "eth1"),
]


def test_each_object_has_a_key_of_its_own() -> None:
    assert len({key_of(noun) for noun in KEYED}) == len(KEYED)
    assert list(by_key(KEYED).values()) == KEYED


SMALL = st.dictionaries(st.sampled_from("abc"), st.sampled_from("01"))


@given(SMALL, SMALL)
def test_strays_go_and_only_named_keys_are_compared(
    want: dict[str, str], have: dict[str, str]
) -> None:
    desired = by_key(Sysctl(path, value) for path, value in want.items())
    observed = by_key(Sysctl(path, value) for path, value in have.items())
    changes = {c.noun.path: c for c in diff(desired, observed)}
    assert changes.keys() == {p for p in "abc" if want.get(p) != have.get(p)}
    for path, change in changes.items():
        assert (change.desired and change.desired.value) == want.get(path)
        assert (change.observed and change.observed.value) == have.get(path)
    one = key_of(Sysctl("a", ""))
    assert [c.noun.path for c in diff(desired, observed, [one])] == (["a"] * ("a" in changes))
    assert list(diff(desired, observed, [])) == []


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


BUCKET, REDIRECT = TokenBucket("eth0", 100, 10, 1), Redirect("eth0", "ifb0")


@pytest.mark.parametrize(
    ("observed", "faults"),
    [
        ({"rate": 99}, [Fault("rate", 100, 99)]),
        ({"buffer": 9, "limit": 2}, [Fault("buffer", 10, 9), Fault("limit", 1, 2)]),
    ],
)
def test_every_number_of_a_limit_counts(observed: dict[str, Any], faults: list[Fault]) -> None:
    desired = Space(buckets=(BUCKET,), redirects=(REDIRECT,))
    [change] = diff_space(desired, replace(desired, buckets=(replace(BUCKET, **observed),)))
    assert list(change.faults) == faults
    [change] = diff_space(desired, replace(desired, redirects=(Redirect("eth0", ""),)))
    assert list(change.faults) == [Fault("to", "ifb0", "")]
    assert [c.observed for c in diff_space(desired, Space())] == [None, None]
    assert diff_space(Space(), desired) == ()
