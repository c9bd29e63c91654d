"""`diff` against a naive reference, on worlds so small that nearly everything collides."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.diff import Noun, diff
from kernel.model import Address, Link, Port, Route, Space, Sysctl

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
)
INTERFACES = st.sampled_from(
    [ip_interface(a) for a in ("10.0.0.2/24", "10.0.0.2/25", "fd00::2/64")]
)
ADDRESSES = st.builds(Address, NAMES, INTERFACES, SWITCH)
GATEWAYS = st.sampled_from([None, ip_address("10.0.0.1"), ip_address("10.0.0.9")])
DESTINATIONS = st.sampled_from([ip_network(n) for n in ("0.0.0.0/0", "10.1.0.0/16", "::/0")])
ROUTES = st.builds(Route, DESTINATIONS, NAMES, GATEWAYS, table=st.sampled_from((254, 1000)))
SYSCTLS = st.builds(Sysctl, st.sampled_from("ab"), st.sampled_from("01"), SWITCH)


def worlds() -> st.SearchStrategy[Space]:
    return st.builds(
        Space,
        st.lists(LINKS, max_size=2, unique_by=lambda link: link.name).map(tuple),
        st.lists(ADDRESSES, max_size=3, unique=True).map(tuple),
        st.lists(ROUTES, max_size=4, unique=True).map(tuple),
        st.lists(SYSCTLS, max_size=2, unique_by=lambda setting: setting.path).map(tuple),
    )


def naive(want: Space, have: Space) -> Counter[Noun]:
    """How many differences each wanted noun has."""
    found: Counter[Noun] = Counter()
    for link in want.links:
        found[link] += naive_link(link, have)
    for address in want.addresses:
        there = [a for a in have.addresses if a.link == address.link]
        found[address] += all(a.address != address.address for a in there)
    for route in want.routes:
        keys = [(r.dst, r.table, r.link, r.via) for r in have.routes]
        found[route] += (route.dst, route.table, route.link, route.via) not in keys
    for setting in want.sysctls:
        values = [s.value for s in have.sysctls if s.path == setting.path]
        found[setting] += setting.required and values != [setting.value]
    return +found


def naive_link(want: Link, have: Space) -> int:
    named = [link for link in have.links if link.name == want.name]
    if not named:
        return 1
    [link] = named
    wrong = [
        link.kind != want.kind,
        want.up and not link.up,
        want.mac is not None and link.mac != want.mac,
        want.mtu not in (None, 0, link.mtu),
    ]
    if want.port and (link.port is None or link.port.bridge != want.port.bridge):
        wrong.append(True)
    elif want.port and link.port:
        wrong.append(link.port.hairpin != want.port.hairpin)
        wrong.append(link.port.isolated != want.port.isolated)
    return sum(wrong)


@settings(max_examples=200)
@given(worlds(), worlds())
def test_it_finds_what_a_naive_comparison_finds(want: Space, have: Space) -> None:
    changes = diff(want, have, "pod")
    assert Counter(change.want for change in changes) == naive(want, have)
    for change in changes:
        assert " pod" in change.text
        assert "None" not in change.text.replace("MAC None", "").replace("MTU None", "")


@given(worlds())
def test_nothing_differs_from_itself(world: Space) -> None:
    assert diff(world, world, "node") == ()


@given(worlds(), worlds())
def test_what_is_there_beyond_the_wanted_is_no_difference(want: Space, more: Space) -> None:
    names = {link.name for link in want.links}
    paths = {setting.path for setting in want.sysctls}
    have = Space(
        (*want.links, *(link for link in more.links if link.name not in names)),
        (*more.addresses, *want.addresses),
        (*more.routes, *want.routes),
        (*want.sysctls, *(s for s in more.sysctls if s.path not in paths)),
    )
    assert diff(want, have, "pod") == ()


@given(worlds())
def test_everything_is_missing_where_nothing_is(want: Space) -> None:
    wanted = Counter(
        (
            *want.links,
            *want.addresses,
            *want.routes,
            *(setting for setting in want.sysctls if setting.required),
        )
    )
    changes = diff(want, Space(), "pod")
    assert Counter(change.want for change in changes) == wanted
    assert {change.have for change in changes} <= {None}


ETH0 = Link("eth0", mac="02:00:00:00:00:01", mtu=1500, port=Port("cni0"))
DEFAULT = Route(ip_network("0.0.0.0/0"), "eth0", ip_address("10.0.0.1"))
WANT = Space(
    (ETH0,),
    (Address("eth0", ip_interface("10.0.0.2/24")),),
    (DEFAULT,),
    (Sysctl("net/ipv4/ip_forward", "1"),),
)


@pytest.mark.parametrize(
    ("have", "text"),
    [
        (replace(WANT, links=()), "link eth0 is missing in the pod"),
        (replace(WANT, links=(replace(ETH0, up=False),)), "link eth0 in the pod is down"),
        (
            replace(WANT, links=(replace(ETH0, mac="02:00:00:00:00:02"),)),
            "link eth0 in the pod has MAC 02:00:00:00:00:02, not 02:00:00:00:00:01",
        ),
        (
            replace(WANT, links=(replace(ETH0, mtu=9000),)),
            "link eth0 in the pod has MTU 9000, not 1500",
        ),
        (
            replace(WANT, links=(replace(ETH0, kind="dummy"),)),
            "link eth0 in the pod is a dummy, not a veth",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=None),)),
            "link eth0 in the pod is not a port of bridge cni0",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=Port("cni1")),)),
            "link eth0 in the pod has master cni1, not cni0",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=Port("cni0", hairpin=True)),)),
            "link eth0 in the pod has hairpin on, not off",
        ),
        (replace(WANT, addresses=()), "address 10.0.0.2/24 is missing on eth0 in the pod"),
        (
            replace(WANT, routes=()),
            "route 0.0.0.0/0 via 10.0.0.1 dev eth0 is missing in the pod",
        ),
        (
            replace(WANT, routes=(replace(DEFAULT, via=None),)),
            "route 0.0.0.0/0 in the pod goes dev eth0, not via 10.0.0.1 dev eth0",
        ),
        (replace(WANT, sysctls=()), "net/ipv4/ip_forward in the pod is not 1"),
    ],
)
def test_each_difference_is_said_in_words(have: Space, text: str) -> None:
    assert [change.text for change in diff(WANT, have, "pod")] == [text]
