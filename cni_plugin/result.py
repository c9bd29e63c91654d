"""Results of ADD in every version of the specification (SPEC section 5; SPEC 0.2.0 "Result")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.versions import has_version, require_supported
from ipam.errors import ConfigError
from ipam.json_section import (
    INT_MAX,
    ROUTE_NUMBERS,
    CniRoute,
    Dns,
    Section,
    parse_dns,
    parse_route,
)

if TYPE_CHECKING:
    from kernel.model import IPAddress, IPInterface


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
class Result:
    """What an ADD returns, free of any version."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[CniRoute, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    def of_pod(self, ifname: str) -> Interface | None:
        """The pod's interface of that name."""
        return next((i for i in self.interfaces if i.sandbox and i.name == ifname), None)

    def addresses_of_pod(self, ifname: str) -> tuple[IPInterface, ...]:
        """The addresses of the pod's interface, and those that no interface is named for."""
        numbered = enumerate(self.interfaces)
        mine = {None, *(n for n, i in numbered if i.sandbox and i.name == ifname)}
        return tuple(ip.address for ip in self.ips if ip.interface in mine)


_DNS_KEYS = ("nameservers", "domain", "search", "options")
_MAC_SEPARATORS = str.maketrans("", "", ":-.")
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
        body["routes"] = [_render_route(r) for r in result.routes]
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


def _render_route(route: CniRoute) -> dict[str, Any]:
    """Its numbers came with 1.1.0. Older results have them, too, as those of the reference do: main
    plugins take the metric of a route from their IPAM plugin's result."""
    body: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        body["gw"] = str(route.gw)
    numbers = ((key, getattr(route, key)) for key in ROUTE_NUMBERS)
    return body | {key: value for key, value in numbers if value is not None}


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
        routes = [_render_route(r) for r in result.routes if r.dst.version == family]
        body[f"ip{family}"] = entry | ({"routes": routes} if routes else {})
    return body | {"dns": dict(result.dns)}


def render_dns(dns: Dns) -> dict[str, Any]:
    """DNS settings as a result's dns object, without those that are empty."""
    lists = {"nameservers": dns.nameservers, "search": dns.search, "options": dns.options}
    settings = {**{key: list(value) for key, value in lists.items()}, "domain": dns.domain}
    return {key: settings[key] for key in _DNS_KEYS if settings[key]}


def canonical_mac(text: str) -> str:
    """A MAC in any of the forms that Go's net.ParseMAC takes, as the kernel's readers write it."""
    digits = text.lower().translate(_MAC_SEPARATORS)
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def parse_result(raw: Mapping[str, Any], version: str, key: str = "prevResult") -> Result:
    """A result object of any version. Raises code 7 naming the key that is wrong.

    version: the configuration's, for a result that names none.
    """
    spoken = version
    try:
        result = Section.of(key, raw)
        spoken = require_supported(result.get("cniVersion") or version)
        if not has_version(spoken, "0.3.0"):
            return _parse_020(result)
        return _parse_030(result)
    except ConfigError as error:
        raise CniError(INVALID_CONFIG, f"{key} is no CNI {spoken} result", str(error)) from error


def _parse_030(raw: Section) -> Result:
    interfaces = tuple(
        Interface(
            name=i.string("name") or "",
            mac=i.string("mac") or "",
            mtu=i.integer("mtu") or 0,
            sandbox=i.string("sandbox") or "",
            extra={key: text for key in _EXTRA_KEYS if (text := i.string(key)) is not None},
        )
        for i in raw.sections("interfaces")
    )
    ips = tuple(_parse_ip(ip, "address", len(interfaces)) for ip in raw.sections("ips"))
    return Result(interfaces, ips, _parse_routes(raw), _parse_dns(raw))


def _parse_ip(raw: Section, key: str, interfaces: int = 0) -> IPConfig:
    address, index = raw.interface(key), raw.integer("interface", -INT_MAX)
    if address is None:
        raise raw.fail(key, None, "an address in CIDR notation")
    # IPAM plugins name an interface that the main plugin has yet to list.
    known = index if index is not None and 0 <= index < interfaces else None
    return IPConfig(address, raw.address("gateway"), known)


def _parse_020(raw: Section) -> Result:
    entries = [raw.section(key) for key in ("ip4", "ip6")]
    entries = [entry for entry in entries if entry.values]
    ips = tuple(_parse_ip(entry, "ip") for entry in entries)
    routes = tuple(route for entry in entries for route in _parse_routes(entry))
    return Result((), ips, routes, _parse_dns(raw))


def _parse_routes(raw: Section) -> tuple[CniRoute, ...]:
    return tuple(map(parse_route, raw.sections("routes")))


def _parse_dns(raw: Section) -> dict[str, Any]:
    return render_dns(parse_dns(raw.section("dns")))


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
