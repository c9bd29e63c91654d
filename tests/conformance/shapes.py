"""The form of a result, per specification version (SPEC section 5)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from .spec import at_least

Json = dict[str, Any]
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+")
_NEW_INTERFACE_KEYS = ("mtu", "socketPath", "pciID")  # since 1.1.0
_NEW_ROUTE_KEYS = ("mtu", "advmss", "priority", "table", "scope")  # since 1.1.0


def check_result(result: Json, version: str) -> None:
    """Asserts that *result* is a Success object of *version*."""
    assert result.get("cniVersion") == version, f"cniVersion is {result.get('cniVersion')!r}"
    if at_least(version, "0.3.0"):
        _check_rich(result, version)
    else:
        _check_plain(result)
    _check_dns(result.get("dns", {}))


def _check_plain(result: Json) -> None:
    _lacks(result, ("ips", "interfaces", "routes"), "a result before 0.3.0")
    assert "ip4" in result or "ip6" in result, f"neither ip4 nor ip6 in {result}"
    for key, family in (("ip4", 4), ("ip6", 6)):
        if key in result:
            _check_address({"address": result[key]["ip"], **result[key]}, family)
            _check_routes(result[key].get("routes", []), "0.2.0", family)


def _check_rich(result: Json, version: str) -> None:
    _lacks(result, ("ip4", "ip6"), f"a result of {version}")
    interfaces = result.get("interfaces")
    assert isinstance(interfaces, list), f"interfaces is {interfaces!r}"
    assert interfaces, f"interfaces is empty in {result}"
    for interface in interfaces:
        _check_interface(interface, version)
    _check_routes(result.get("routes", []), version)
    for ip in result.get("ips", []):
        _check_ip(ip, version, len(interfaces))


def _check_interface(interface: Json, version: str) -> None:
    assert isinstance(interface.get("name"), str), f"name: {interface}"
    assert interface["name"], f"name: {interface}"
    assert isinstance(interface.get("sandbox", ""), str), f"sandbox: {interface}"
    if "mac" in interface:
        assert _MAC.fullmatch(interface["mac"]), f"mac: {interface}"
    if not at_least(version, "1.1.0"):
        _lacks(interface, _NEW_INTERFACE_KEYS, f"an interface of {version}")
    _unsigned(interface, ("mtu",))


def _check_ip(ip: Json, version: str, interfaces: int) -> None:
    if at_least(version, "1.0.0"):
        _lacks(ip, ("version",), f"an address of {version}")
        _check_address(ip)
    else:
        assert ip.get("version") in ("4", "6"), f"version of {ip}"
        _check_address(ip, int(ip["version"]))
    _unsigned(ip, ("interface",))
    assert ip.get("interface", 0) < interfaces, f"interface of {ip} is past {interfaces}"


def _check_address(ip: Json, family: int | None = None) -> None:
    assert "/" in ip["address"], f"{ip['address']!r} has no prefix length"
    address = ipaddress.ip_interface(ip["address"])
    assert family in (None, address.version), f"{ip} is not of family {family}"
    if "gateway" in ip:
        gateway = ipaddress.ip_address(ip["gateway"])
        assert gateway.version == address.version, f"gateway of another family: {ip}"


def _check_routes(routes: Any, version: str, family: int | None = None) -> None:
    assert isinstance(routes, list), f"routes is {routes!r}"
    for route in routes:
        dst = ipaddress.ip_network(route["dst"], strict=False)
        assert "/" in route["dst"], f"{route} is not in CIDR notation"
        assert family in (None, dst.version), f"{route} is not of family {family}"
        if "gw" in route:
            assert ipaddress.ip_address(route["gw"]).version == dst.version, f"gw of {route}"
        if not at_least(version, "1.1.0"):
            _lacks(route, _NEW_ROUTE_KEYS, f"a route of {version}")
        _unsigned(route, _NEW_ROUTE_KEYS)


def _check_dns(dns: Any) -> None:
    assert isinstance(dns, dict), f"dns is {dns!r}"
    for key in ("nameservers", "search", "options"):
        values = dns.get(key, [])
        assert isinstance(values, list), f"dns: {dns}"
        assert all(isinstance(value, str) for value in values), f"dns: {dns}"
    assert isinstance(dns.get("domain", ""), str), f"dns: {dns}"
    for server in dns.get("nameservers", []):
        ipaddress.ip_address(server)


def _lacks(found: Json, keys: Iterable[str], where: str) -> None:
    strangers = sorted(set(keys) & set(found))
    assert not strangers, f"{strangers} do not exist in {where}: {found}"


def _unsigned(found: Json, keys: Iterable[str]) -> None:
    for key in keys:
        value = found.get(key, 0)
        assert type(value) is int, f"{key} is {value!r} in {found}"
        assert value >= 0, f"{key} is {value!r} in {found}"


def addresses(result: Json) -> set[str]:
    """Every address of a result of any version, in CIDR notation."""
    plain = {result[key]["ip"] for key in ("ip4", "ip6") if key in result}
    return plain | {ip["address"] for ip in result.get("ips", [])}


def destinations(result: Json) -> set[str]:
    """Every route's destination in a result of any version."""
    plain = [r for key in ("ip4", "ip6") for r in result.get(key, {}).get("routes", [])]
    return {route["dst"] for route in plain + result.get("routes", [])}
