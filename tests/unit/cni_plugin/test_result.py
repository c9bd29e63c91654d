"""Results in every version: there and back is the identity on what the version can hold."""

import json
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.result import Interface, IPConfig, Result, merge, parse_result, render
from cni_plugin.versions import SUPPORTED
from ipam.json_section import CniRoute
from tests.unit.kernel import strategies as nouns

OLD, MIDDLE, NEW = SUPPORTED[:2], SUPPORTED[2:5], SUPPORTED[5:]
KNOW_INTERFACES = MIDDLE + NEW
words = st.text(max_size=12)
U32 = st.integers(0, 2**32 - 1)

interfaces = st.builds(
    Interface,
    words,
    st.just("") | nouns.macs,
    st.just(0) | nouns.mtus,
    st.just("") | words,
    st.dictionaries(st.sampled_from(("socketPath", "pciID")), words),
)
texts = st.lists(words, min_size=1, max_size=3)
dns = st.fixed_dictionaries(
    {},
    optional={
        "nameservers": texts,
        "domain": words.filter(bool),
        "search": texts,
        "options": texts,
    },
)


def routes_of(version: int) -> st.SearchStrategy[CniRoute]:
    numbers = [st.none() | U32] * 5
    gateways = st.none() | nouns.addresses_of(version)
    return st.builds(CniRoute, nouns.networks_of(version), gateways, *numbers)


def ips_of(version: int, count: int) -> st.SearchStrategy[IPConfig]:
    index = st.none() | st.integers(0, count - 1) if count else st.none()
    gateways = st.none() | nouns.addresses_of(version)
    return st.builds(IPConfig, nouns.interfaces_of(version), gateways, index)


def results_with(count: int) -> st.SearchStrategy[Result]:
    return st.builds(
        Result,
        st.lists(interfaces, min_size=count, max_size=count).map(tuple),
        st.lists(nouns.versions.flatmap(lambda v: ips_of(v, count)), max_size=4).map(tuple),
        st.lists(nouns.versions.flatmap(routes_of), max_size=4).map(tuple),
        dns,
    )


results = st.integers(0, 3).flatmap(results_with)


def held_by(version: str, result: Result) -> Result:
    """What the version can hold of a result, said anew."""
    if version in OLD:
        return held_by_old(result)
    if version == "1.1.0":
        return result
    return replace(
        result,
        interfaces=tuple(Interface(i.name, i.mac, sandbox=i.sandbox) for i in result.interfaces),
    )


def held_by_old(result: Result) -> Result:
    """One address of each family, IPv4 first, and the routes of families that have one."""
    ips = []
    routes = []
    for family in (4, 6):
        mine = [ip for ip in result.ips if ip.address.version == family]
        ips += [IPConfig(ip.address, ip.gateway) for ip in mine[:1]]
        routes += [r for r in result.routes if mine and r.dst.version == family]
    return Result((), tuple(ips), tuple(routes), result.dns)


def through_json(body: dict[str, Any]) -> dict[str, Any]:
    decoded = json.loads(json.dumps(body))
    assert isinstance(decoded, dict)
    return decoded


@settings(max_examples=150)
@given(results, st.sampled_from(SUPPORTED))
def test_there_and_back(result: Result, other: str) -> None:
    """In every version; a prevResult may be of another than the configuration, or say none."""
    for version in SUPPORTED:
        body = through_json(render(result, version))
        assert parse_result(body, other) == held_by(version, result), version
        del body["cniVersion"]
        assert parse_result(body, version) == held_by(version, result), version


@settings(max_examples=40)
@given(results)
def test_conversion_loses_only_what_a_version_cannot_hold(result: Result) -> None:
    for newer, older in product(SUPPORTED, SUPPORTED):
        once = held_by(older, held_by(newer, result))
        converted = parse_result(render(parse_result(render(result, newer), newer), older), older)
        assert converted == once, f"{newer} to {older}"


ROUTE_KEYS = {"dst", "gw", "mtu", "advmss", "priority", "table", "scope"}
SHAPES: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    version: (
        {"cniVersion", "interfaces", "ips", "routes", "dns"},
        {"name", "mac", "sandbox"}
        | ({"mtu", "socketPath", "pciID"} if version == "1.1.0" else set()),
        {"address", "gateway", "interface"} | ({"version"} if version in MIDDLE else set()),
        ROUTE_KEYS,
    )
    for version in KNOW_INTERFACES
}
"""Keys of the result, its interfaces, addresses and routes (SPEC, "Result", of each version)."""


def keys(items: Iterable[dict[str, Any]]) -> set[str]:
    return {key for item in items for key in item}


@settings(max_examples=60)
@given(results)
def test_the_keys_of_versions_with_interfaces(result: Result) -> None:
    for version, (top, of_interface, of_ip, of_route) in SHAPES.items():
        body = render(result, version)
        assert body["cniVersion"] == version
        assert set(body) <= top
        assert keys(body.get("interfaces", [])) <= of_interface
        assert keys(body.get("ips", [])) <= of_ip
        assert keys(body.get("routes", [])) <= of_route
        assert set(body.get("dns", {})) <= {"nameservers", "domain", "search", "options"}
        for told, ip in zip(body.get("ips", []), result.ips, strict=True):
            family = "4" if "." in told["address"] else "6"
            assert told.get("version") == (family if version in MIDDLE else None)
            assert ip_interface(told["address"]) == ip.address


@settings(max_examples=60)
@given(results, st.sampled_from(OLD))
def test_the_keys_of_versions_without_interfaces(result: Result, version: str) -> None:
    body = render(result, version)
    families = {ip.address.version for ip in result.ips}
    assert set(body) == {"cniVersion", "dns"} | {f"ip{family}" for family in families}
    for family in families:
        entry = body[f"ip{family}"]
        assert {"ip"} <= set(entry) <= {"ip", "gateway", "routes"}
        assert ip_interface(entry["ip"]).version == family
        for route in entry.get("routes", []):
            assert {"dst"} <= set(route) <= ROUTE_KEYS
            assert ip_network(route["dst"]).version == family


FULL = Result(
    (
        Interface("cni0", "02:00:00:00:00:01"),
        Interface("eth0", "02:00:00:00:00:02", 1400, "/run/netns/pod", {"pciID": "0000:01:00.0"}),
    ),
    (
        IPConfig(ip_interface("10.0.0.2/24"), ip_address("10.0.0.1"), 1),
        IPConfig(ip_interface("fd00::2/64"), None, 1),
    ),
    (
        CniRoute(ip_network("0.0.0.0/0"), ip_address("10.0.0.1"), mtu=1300, priority=0),
        CniRoute(ip_network("::/0")),
    ),
    {"nameservers": ["10.0.0.1"]},
)


def test_0_2_0_in_full() -> None:
    assert render(FULL, "0.2.0") == {
        "cniVersion": "0.2.0",
        "ip4": {
            "ip": "10.0.0.2/24",
            "gateway": "10.0.0.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "priority": 0}],
        },
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]},
        "dns": {"nameservers": ["10.0.0.1"]},
    }


def test_0_4_0_in_full() -> None:
    assert render(FULL, "0.4.0") == {
        "cniVersion": "0.4.0",
        "interfaces": [
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/pod"},
        ],
        "ips": [
            {"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1},
            {"version": "6", "address": "fd00::2/64", "interface": 1},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "priority": 0},
            {"dst": "::/0"},
        ],
        "dns": {"nameservers": ["10.0.0.1"]},
    }


def test_1_1_0_in_full() -> None:
    assert render(FULL, "1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {
                "name": "eth0",
                "mac": "02:00:00:00:00:02",
                "mtu": 1400,
                "pciID": "0000:01:00.0",
                "sandbox": "/run/netns/pod",
            },
        ],
        "ips": [
            {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1},
            {"address": "fd00::2/64", "interface": 1},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "priority": 0},
            {"dst": "::/0"},
        ],
        "dns": {"nameservers": ["10.0.0.1"]},
    }


@settings(max_examples=80)
@given(results, results)
def test_merged_indexes_name_the_interfaces_that_they_named(before: Result, mine: Result) -> None:
    both = merge(before, mine)
    assert both.interfaces == before.interfaces + mine.interfaces
    assert both.routes == before.routes + mine.routes
    assert both.dns == (mine.dns or before.dns)
    sources = [(before, ip) for ip in before.ips] + [(mine, ip) for ip in mine.ips]
    for merged, (source, ip) in zip(both.ips, sources, strict=True):
        assert (merged.address, merged.gateway) == (ip.address, ip.gateway)
        assert (merged.interface is None) == (ip.interface is None)
        if merged.interface is not None and ip.interface is not None:
            assert both.interfaces[merged.interface] == source.interfaces[ip.interface]
    for place, ip in enumerate(mine.ips, start=len(before.ips)):
        told = both.ips[place].interface
        assert told is None or told >= len(before.interfaces) or ip.interface is None


@settings(max_examples=40)
@given(results, results, results)
def test_merging_is_associative_and_nothing_changes_nothing(
    a: Result, b: Result, c: Result
) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(Result(), a) == a == merge(a, Result())


@settings(max_examples=60)
@given(results, results)
def test_a_chains_result_is_a_result(before: Result, mine: Result) -> None:
    for version in KNOW_INTERFACES:
        both = merge(held_by(version, before), held_by(version, mine))
        assert parse_result(through_json(render(both, version)), version) == both


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def fault_of(body: dict[str, Any], version: str) -> CniError | None:
    try:
        parse_result(body, version)
    except CniError as error:
        return error
    return None


@settings(max_examples=150)
@given(st.sampled_from(SUPPORTED), results, st.data(), json_values)
def test_damage_is_an_error_that_names_the_result(
    version: str, result: Result, data: st.DataObject, value: Any
) -> None:
    body = through_json(render(result, version))
    place: Any = body
    while isinstance(place, dict | list) and place:
        steps = list(place) if isinstance(place, dict) else list(range(len(place)))
        step = data.draw(st.sampled_from(steps))
        if step == "cniVersion":
            return
        if not place[step] or data.draw(st.booleans()):
            place[step] = value
            break
        place = place[step]
    error = fault_of(body, version)
    assert error is None or (error.code == INVALID_CONFIG and "prevResult" in error.msg)
