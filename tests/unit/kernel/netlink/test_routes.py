"""Our route messages as pyroute2 reads them, and pyroute2's as we read them."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

from kernel.model import IPAddress, Route
from kernel.netlink import codec, routes
from kernel.netlink.codec import Message
from tests.unit.kernel import strategies as nouns
from tests.unit.kernel.netlink.pyroute2_codec import (
    CREATE,
    EXCLUSIVE,
    FAMILY,
    INDEXES,
    REQUEST,
    decode,
    encode,
    members,
    without_none,
)


def ip_or_none(text: str | None) -> IPAddress | None:
    return ip_address(text) if text else None


@given(nouns.routes, INDEXES, st.booleans())
def test_routes(route: Route, index: int, exclusive: bool) -> None:
    found = decode(rtmsg, routes.add_route(route, index, exclusive=exclusive))
    assert found["header"]["type"] == routes.RTM_NEWROUTE
    assert found["header"]["flags"] == REQUEST | CREATE | (EXCLUSIVE if exclusive else 0)
    assert (found["family"], found["dst_len"]) == (FAMILY[route.dst.version], route.dst.prefixlen)
    assert (found["proto"], found["scope"], found["type"]) == (route.protocol, route.scope, 1)
    assert found["flags"] == 4 * route.onlink
    assert found["table"] == (route.table if route.table < 256 else 252)
    attrs = members(found)
    metrics = members(attrs.pop("RTA_METRICS")) if "RTA_METRICS" in attrs else {}
    wanted = without_none(RTAX_MTU=route.mtu or None, RTAX_ADVMSS=route.advmss or None)
    assert metrics == wanted
    numbers = {key: attrs.pop(key, None) for key in ("RTA_OIF", "RTA_TABLE", "RTA_PRIORITY")}
    assert list(numbers.values()) == [index, route.table, route.priority or None]
    assert {key: ip_address(value) for key, value in attrs.items()} == without_none(
        RTA_DST=route.dst.network_address if route.dst.prefixlen else None,
        RTA_GATEWAY=route.via,
        RTA_PREFSRC=route.src,
    )


def reported(route: Route, index: int, **changes: Any) -> Message:
    """The route as the kernel would tell it."""
    attrs = without_none(
        RTA_TABLE=route.table,
        RTA_DST=str(route.dst.network_address) if route.dst.prefixlen else None,
        RTA_OIF=index,
        RTA_GATEWAY=str(route.via) if route.via else None,
        RTA_PREFSRC=str(route.src) if route.src else None,
        RTA_PRIORITY=route.priority or None,
    )
    metrics = [("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)]
    attrs["RTA_METRICS"] = {"attrs": [pair for pair in metrics if pair[1]]}
    fields = {
        "family": FAMILY[route.dst.version],
        "dst_len": route.dst.prefixlen,
        "table": route.table if route.table < 256 else 252,
        "proto": route.protocol,
        "scope": route.scope,
        "type": 1,
        "flags": 4 * route.onlink,
        "attrs": list(attrs.items()),
    }
    return encode(rtmsg, **(fields | changes))


@given(nouns.routes, INDEXES)
def test_a_route_as_the_kernel_reports_it(route: Route, index: int) -> None:
    (found,) = routes.parse_route(reported(route, index))
    assert found[0] == index
    wanted = {slot: getattr(route, slot) for slot in Route.__slots__} | {"link": ""}
    assert {slot: getattr(found[1], slot) for slot in Route.__slots__} == wanted


@pytest.mark.parametrize(
    "changes",
    [{"type": 2}, {"type": 7}, {"flags": 0x200}, {"attrs": [("RTA_DST", "10.0.0.0")]}],
    ids=["local", "unreachable", "cloned", "no next hop"],
)
def test_what_is_no_route_through_one_link_is_passed_over(changes: dict[str, Any]) -> None:
    route = Route(ip_network("10.0.0.0/24"), "")
    assert routes.parse_route(reported(route, 3)) != []
    assert routes.parse_route(reported(route, 3, **changes)) == []


def test_a_multipath_route_is_one_route_for_each_next_hop() -> None:
    hops = [
        {"oif": index, "hops": 0, "flags": 0, "attrs": [("RTA_GATEWAY", gateway)]}
        for index, gateway in ((3, "10.0.0.1"), (7, "10.1.0.1"))
    ]
    message = reported(Route(ip_network("0.0.0.0/0"), ""), 3, attrs=[("RTA_MULTIPATH", hops)])
    found = [(index, str(route.via)) for index, route in routes.parse_route(message)]
    assert found == [(3, "10.0.0.1"), (7, "10.1.0.1")]


def test_next_hops_of_the_other_family() -> None:
    """RFC 8950: pyroute2 has no such attribute in what it encodes."""
    route = Route(ip_network("10.0.0.0/24"), "", via=ip_address("fe80::1"))
    head, attrs = (
        routes.add_route(route, 3).body[:12],
        members(decode(rtmsg, routes.add_route(route, 3))),
    )
    assert (attrs["RTA_VIA"]["addr"], attrs["RTA_VIA"]["family"]) == ("fe80::1", FAMILY[6])
    assert "RTA_GATEWAY" not in attrs
    ((index, found),) = routes.parse_route(Message(24, 0, routes.add_route(route, 3).body))
    assert (index, found) == (3, route)
    assert head[0] == FAMILY[4]


@given(nouns.ip_addresses, INDEXES)
def test_route_look_up(address: IPAddress, index: int) -> None:
    found = decode(rtmsg, routes.get_route(address))
    assert found["header"]["type"] == routes.RTM_GETROUTE
    assert (found["family"], found["dst_len"]) == (FAMILY[address.version], address.max_prefixlen)
    assert {key: ip_address(value) for key, value in members(found).items()} == {"RTA_DST": address}
    answer = Route(ip_interface(address).network, "")
    assert routes.parse_link_index(reported(answer, index)) == index
    assert routes.parse_link_index(encode(rtmsg, attrs=[("RTA_TABLE", 254)])) == 0


@given(nouns.routes, INDEXES)
def test_a_route_goes_by_mark_and_link(route: Route, index: int) -> None:
    found = decode(rtmsg, routes.delete_route(route, index))
    assert found["header"]["type"] == routes.RTM_DELROUTE
    assert (found["proto"], found["scope"], found["type"]) == (route.protocol, 255, 0)
    assert (found["family"], found["dst_len"]) == (FAMILY[route.dst.version], route.dst.prefixlen)
    attrs = members(found)
    dst = attrs.pop("RTA_DST", None)
    assert (dst and ip_address(dst)) == (route.dst.network_address if route.dst.prefixlen else None)
    assert attrs == without_none(
        RTA_TABLE=route.table, RTA_OIF=index, RTA_PRIORITY=route.priority or None
    )
    replaced = decode(
        rtmsg, routes.set_route(route, index, codec.NLM_F_CREATE | codec.NLM_F_REPLACE)
    )
    assert replaced["header"]["flags"] == REQUEST | CREATE | codec.NLM_F_REPLACE


@given(nouns.routes, INDEXES)
def test_a_route_reads_with_its_name_and_priority(route: Route, index: int) -> None:
    found = routes.parse_named_route(reported(route, index), {index: "eth0"})
    assert found is not None
    assert found.link == "eth0"
    ipv6_default = route.dst.version == 6 and route.priority == 1024
    assert found.priority == (0 if ipv6_default else route.priority)


@pytest.mark.parametrize("kind", [6, 7, 8, 9])
def test_routes_that_refuse_have_no_link(kind: int) -> None:
    route = Route(ip_network("fd00::/64"), "", table=300, protocol=113)
    found = routes.parse_named_route(reported(route, 3, type=kind), {3: "eth0"})
    assert found == route


@pytest.mark.parametrize("changes", [{"type": 2}, {"flags": 0x200}], ids=["local", "cloned"])
def test_the_kernels_own_routes_are_none(changes: dict[str, Any]) -> None:
    route = Route(ip_network("10.0.0.0/24"), "")
    assert routes.parse_named_route(reported(route, 3, **changes), {3: "eth0"}) is None


@pytest.mark.parametrize(("version", "mark"), [(4, 0), (6, 0), (4, 113)])
def test_dumps_name_family_and_mark(version: int, mark: int) -> None:
    found = decode(rtmsg, routes.list_routes(version, mark))
    assert found["header"]["type"] == routes.RTM_GETROUTE
    assert (found["family"], found["proto"], found["table"]) == (FAMILY[version], mark, 0)
    assert members(found) == {}


@given(nouns.ip_addresses, INDEXES)
def test_local_routes_of_one_link(address: IPAddress, index: int) -> None:
    found = decode(rtmsg, routes.list_local_routes(address.version, index))
    assert (found["family"], found["table"], found["type"]) == (FAMILY[address.version], 255, 2)
    assert members(found) == {"RTA_OIF": index}
    answer = reported(Route(ip_network(address), ""), index)
    assert routes.parse_destination(answer) == address
    default = Route(ip_network("0.0.0.0/0"), "")
    assert routes.parse_destination(reported(default, index)) is None


@pytest.mark.parametrize(("protocol", "found"), [(113, 1), (2, 0)])
def test_local_routes_count_where_they_are_podwires(protocol: int, found: int) -> None:
    route = Route(ip_network("10.1.0.0/32"), "", table=255, protocol=protocol, local=True)
    hops = routes.parse_route(reported(route, 3, type=2))
    assert [(index, r.local) for index, r in hops] == [(3, True)] * found
