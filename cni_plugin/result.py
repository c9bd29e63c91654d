"""Results of ADD in every version of the specification (SPEC section 5; SPEC 0.2.0 "Result")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.versions import has_version, require_supported

if TYPE_CHECKING:
    from ipam.json_section import Dns
    from kernel.model import IPAddress, IPInterface, IPNetwork


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of the result. mtu in bytes, 0 = not in the result."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IPConfig:
    """An address of the result. interface: index into the result's interfaces."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


@dataclass(frozen=True, slots=True)
class ResultRoute:
    """A route of the result; the optional numbers came with 1.1.0."""

    dst: IPNetwork
    gw: IPAddress | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What an ADD returns, free of any version."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[ResultRoute, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)


_ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
_DNS_KEYS = ("nameservers", "domain", "search", "options")
_EXTRA_KEYS = ("socketPath", "pciID")


def render(result: Result, version: str) -> dict[str, Any]:
    """The result as the JSON object of a version. What the version has no place for is left out."""
    if not has_version(version, "0.3.0"):
        return _render_020(result, version)
    body: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        body["interfaces"] = [_render_interface(i, version) for i in result.interfaces]
    if result.ips:
        body["ips"] = [_render_ip(ip, version) for ip in result.ips]
    if result.routes:
        body["routes"] = [_render_route(r, version) for r in result.routes]
    if result.dns or not has_version(version, "1.0.0"):
        body["dns"] = dict(result.dns)
    return body


def _render_interface(interface: Interface, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"name": interface.name}
    if interface.mac:
        body["mac"] = interface.mac
    if has_version(version, "1.1.0"):
        if interface.mtu:
            body["mtu"] = interface.mtu
        body |= interface.extra
    if interface.sandbox:
        body["sandbox"] = interface.sandbox
    return body


def _render_ip(ip: IPConfig, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"address": str(ip.address)}
    if not has_version(version, "1.0.0"):
        body = {"version": str(ip.address.version), **body}
    if ip.gateway is not None:
        body["gateway"] = str(ip.gateway)
    if ip.interface is not None:
        body["interface"] = ip.interface
    return body


def _render_route(route: ResultRoute, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        body["gw"] = str(route.gw)
    if has_version(version, "1.1.0"):
        numbers = ((key, getattr(route, key)) for key in _ROUTE_NUMBERS)
        body |= {key: value for key, value in numbers if value is not None}
    return body


def _render_020(result: Result, version: str) -> dict[str, Any]:
    """0.1.0 and 0.2.0 know one address per family, and routes below it."""
    body: dict[str, Any] = {"cniVersion": version}
    for family in (4, 6):
        first = next((ip for ip in result.ips if ip.address.version == family), None)
        if first is None:
            continue
        entry: dict[str, Any] = {"ip": str(first.address)}
        if first.gateway is not None:
            entry["gateway"] = str(first.gateway)
        routes = [_render_route(r, version) for r in result.routes if r.dst.version == family]
        body[f"ip{family}"] = entry | ({"routes": routes} if routes else {})
    return body | {"dns": dict(result.dns)}


def render_dns(dns: Dns) -> dict[str, Any]:
    """DNS settings as a result's dns object, without those that are empty."""
    lists = {"nameservers": dns.nameservers, "search": dns.search, "options": dns.options}
    settings = {**{key: list(value) for key, value in lists.items()}, "domain": dns.domain}
    return {key: settings[key] for key in _DNS_KEYS if settings[key]}


def parse_result(raw: Mapping[str, Any], version: str, key: str = "prevResult") -> Result:
    """A result object of any version. Raises code 7 naming the key that is wrong.

    version: the configuration's, for a result that names none.
    """
    spoken = raw.get("cniVersion") or version
    try:
        if not has_version(require_supported(spoken), "0.3.0"):
            return _parse_020(raw)
        return _parse_030(raw)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        words = f"{type(error).__name__}: {error}"
        raise CniError(INVALID_CONFIG, f"{key} is no CNI {spoken} result", words) from error


def _parse_030(raw: Mapping[str, Any]) -> Result:
    interfaces = tuple(
        Interface(
            name=_text(i["name"]),
            mac=_text(i.get("mac", "")),
            mtu=int(i.get("mtu", 0)),
            sandbox=_text(i.get("sandbox", "")),
            extra={key: i[key] for key in _EXTRA_KEYS if key in i},
        )
        for i in raw.get("interfaces") or ()
    )
    ips = tuple(
        IPConfig(
            ip_interface(_text(ip["address"])),
            _address(ip.get("gateway")),
            _index(ip.get("interface")),
        )
        for ip in raw.get("ips") or ()
    )
    for ip in ips:
        if ip.interface is not None and not 0 <= ip.interface < len(interfaces):
            raise ValueError(f"ips: interface {ip.interface} is no index of interfaces")
    return Result(interfaces, ips, _parse_routes(raw.get("routes")), _parse_dns(raw.get("dns")))


def _parse_020(raw: Mapping[str, Any]) -> Result:
    ips: list[IPConfig] = []
    routes: list[ResultRoute] = []
    for entry in filter(None, (raw.get("ip4"), raw.get("ip6"))):
        ips.append(IPConfig(ip_interface(_text(entry["ip"])), _address(entry.get("gateway"))))
        routes += _parse_routes(entry.get("routes"))
    return Result((), tuple(ips), tuple(routes), _parse_dns(raw.get("dns")))


def _parse_routes(raw: Any) -> tuple[ResultRoute, ...]:
    return tuple(
        ResultRoute(
            ip_network(_text(r["dst"]), strict=False),
            _address(r.get("gw")),
            *(None if r.get(key) is None else int(r[key]) for key in _ROUTE_NUMBERS),
        )
        for r in raw or ()
    )


def _parse_dns(raw: Any) -> dict[str, Any]:
    return {key: raw[key] for key in _DNS_KEYS if raw and raw.get(key)}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _address(value: object) -> IPAddress | None:
    return ip_address(_text(value)) if value else None


def _index(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise TypeError(f"{value!r} is not a number")


def merge(before: Result, mine: Result) -> Result:
    """The result of a chain: what earlier plugins did, then ours with its indexes moved on."""
    shift = len(before.interfaces)
    moved = tuple(
        ip if ip.interface is None else replace(ip, interface=ip.interface + shift)
        for ip in mine.ips
    )
    return Result(
        before.interfaces + mine.interfaces,
        before.ips + moved,
        before.routes + mine.routes,
        mine.dns or before.dns,
    )
