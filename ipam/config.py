"""The `ipam` section of a network configuration, parsed once into an `IpamConf`.

Keys and their meaning are those of the reference `host-local`
(plugins/ipam/host-local/backend/allocator/config.go); `restPeriod` is podwire's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ipam.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, IO_FAILURE, ConfigError, IpamError
from ipam.json_section import (
    CniRoute,
    Dns,
    Section,
    parse_address_with_prefix,
    parse_dns,
    parse_route,
    show,
)
from ipam.ranges import (
    IPAddress,
    IPInterface,
    Range,
    RangeSet,
    build_range,
    check_set,
    gateways_of,
    interface_of,
    range_of,
    render_set,
    sets_overlap,
)

RESOLV_CONF_MAX = 1 << 20
"""Bytes."""
NOTHING: Mapping[str, object] = MappingProxyType({})
NO_ARGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class IpamConf:
    """What one network asks of IPAM; `rest` is in seconds."""

    network: str
    range_sets: tuple[RangeSet, ...]
    routes: tuple[CniRoute, ...]
    dns: Dns | None
    data_dir: Path
    rest: float
    requested: tuple[IPAddress, ...]

    @property
    def gateways(self) -> tuple[IPInterface, ...]:
        """The gateway of each range, with the prefix length of its subnet; each once."""
        found = (
            interface_of(each.gateway, each.subnet.prefixlen)
            for range_set in self.range_sets
            for each in range_set
            if each.gateway is not None
        )
        return tuple(dict.fromkeys(found))

    @property
    def ranges(self) -> tuple[tuple[IPAddress, IPAddress], ...]:
        """The first and the last address of each range."""
        return tuple((r.start, r.end) for range_set in self.range_sets for r in range_set)


@dataclass(frozen=True, slots=True)
class _Requested:
    """A requested address, where it was requested, and the error code of that place."""

    address: IPAddress
    source: str
    code: int

    def error(self, msg: str) -> ConfigError:
        return ConfigError(f"{self.source}: requested address {self.address} {msg}", code=self.code)


def parse_ipam(
    network: str,
    ipam: Mapping[str, object],
    *,
    runtime_config: Mapping[str, object] = NOTHING,
    cni_args: Mapping[str, str] = NO_ARGS,
    args: Mapping[str, object] = NOTHING,
    default_data_dir: Path,
    cni_version: str | None = None,
) -> IpamConf:
    """Parse and check the `ipam` section; `args` is the configuration's `args.cni` object.

    Raises ConfigError with code 7 (4 for what CNI_ARGS says), IpamError with code 5 if
    resolvConf cannot be read. With `cni_version` below 0.3.0 more than one address per family
    is refused, as results of these versions have no place for it.
    """
    section = Section.of("ipam", ipam)
    runtime = Section.of("runtimeConfig", runtime_config)
    range_sets = _parse_range_sets(section, runtime)
    _check_version(range_sets, cni_version)
    requested = (
        *_requested_in_environment(cni_args),
        *_requested(Section.of("args.cni", args)),
        *_requested(runtime),
    )
    return IpamConf(
        network=network,
        range_sets=range_sets,
        routes=tuple(_parse_route(route) for route in section.sections("routes")),
        dns=_parse_dns(section),
        data_dir=_parse_data_dir(section, default_data_dir),
        rest=section.seconds("restPeriod") or 0.0,
        requested=_match_requested(requested, range_sets),
    )


RANGE_SETS_MAX = 64
"""A pod has an address of each set; comparing all of them must not take long either."""


def _parse_range_sets(section: Section, runtime: Section) -> tuple[RangeSet, ...]:
    """Range sets of the runtime come first, then the one at top level, then `ranges`."""
    named = [*_named_sets(runtime, "ipRanges")]
    if section.get("subnet") is not None:
        named.append((section.name("subnet"), _checked_set(section.path, [section])))
    named += _named_sets(section, "ranges")
    if len(named) > RANGE_SETS_MAX:
        raise ConfigError(f"{len(named)} range sets are too many: at most {RANGE_SETS_MAX}")
    if not named:
        raise ConfigError("no address ranges: ipam.subnet and ipam.ranges are both missing")
    _check_overlaps(named)
    return tuple(range_set for _, range_set in named)


def _named_sets(section: Section, key: str) -> Iterable[tuple[str, RangeSet]]:
    for index, item in enumerate(section.items(key)):
        path = f"{section.name(key)}[{index}]"
        if not isinstance(item, list | tuple):
            raise ConfigError(f"{path} is {show(item)}, must be a list of ranges")
        ranges = [Section.of(f"{path}[{n}]", value) for n, value in enumerate(item)]
        yield path, _checked_set(path, ranges)


RANGES_MAX = 256
"""Ranges of a set; they are compared with each other."""


def _checked_set(path: str, ranges: Iterable[Section]) -> RangeSet:
    range_set = tuple(_parse_range(section) for section in ranges)
    if len(range_set) > RANGES_MAX:
        raise ConfigError(f"{path}: {len(range_set)} ranges are too many: at most {RANGES_MAX}")
    try:
        check_set(range_set)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return range_set


def _parse_range(section: Section) -> Range:
    subnet = section.network("subnet")
    if subnet is None:
        raise section.fail("subnet", section.get("subnet"), "a subnet in CIDR notation")
    bounds = (section.address(key) for key in ("rangeStart", "rangeEnd", "gateway"))
    try:
        return build_range(subnet, *bounds)
    except ValueError as error:
        raise ConfigError(f"{section.path}: {error}") from error


def _check_overlaps(named: list[tuple[str, RangeSet]]) -> None:
    for index, (path, one) in enumerate(named):
        for other_path, other in named[index + 1 :]:
            if sets_overlap(one, other):
                raise ConfigError(
                    f"{path} ({render_set(one)}) overlaps with {other_path} ({render_set(other)})"
                )


def _check_version(range_sets: tuple[RangeSet, ...], cni_version: str | None) -> None:
    """Results before CNI 0.3.0 have one address per family."""
    if cni_version not in ("0.1.0", "0.2.0"):
        return
    families = [range_set[0].subnet.version for range_set in range_sets]
    for family in (4, 6):
        if families.count(family) > 1:
            raise ConfigError(
                f"ipam.ranges has {families.count(family)} range sets of IPv{family}, but"
                f" cniVersion {cni_version} knows one address per family"
            )


def _parse_route(section: Section) -> CniRoute:
    route = parse_route(section)
    if route.gw is not None and route.gw.version != route.dst.version:
        raise section.fail("gw", str(route.gw), f"of the address family of dst {route.dst}")
    section.integer("scope", highest=255)
    return route


def _parse_dns(section: Section) -> Dns | None:
    """A file named by `resolvConf` wins over a `dns` object."""
    path = section.text("resolvConf")
    if path is not None:
        return _read_resolv_conf(path)
    value = section.get("dns")
    return None if value is None else parse_dns(Section.of(section.name("dns"), value))


def _parse_data_dir(section: Section, default: Path) -> Path:
    text = section.text("dataDir")
    path = default if text is None else Path(text)
    if not path.is_absolute():
        raise section.fail("dataDir", text, "an absolute path")
    return path


def _requested_in_environment(cni_args: Mapping[str, str]) -> Iterable[_Requested]:
    text = cni_args.get("IP")
    if text:
        yield _parse_requested(text, "CNI_ARGS IP", INVALID_ENVIRONMENT)


def _requested(section: Section) -> Iterable[_Requested]:
    for index, item in enumerate(section.items("ips")):
        if item is not None and item != "":
            yield _parse_requested(item, f"{section.name('ips')}[{index}]", INVALID_CONFIG)


def _parse_requested(item: object, source: str, code: int) -> _Requested:
    try:
        if not isinstance(item, str):
            raise ValueError("not a string")
        return _Requested(parse_address_with_prefix(item), source, code)
    except ValueError as error:
        raise ConfigError(f"{source} is {show(item)}, must be an IP address", code=code) from error


def _match_requested(
    requested: Iterable[_Requested], range_sets: tuple[RangeSet, ...]
) -> tuple[IPAddress, ...]:
    """Requested addresses, each once; every one must lie in a range set of its own."""
    by_set: dict[int, _Requested] = {}
    gateways = gateways_of(range_sets)
    for request in requested:
        index = _set_of(request, range_sets)
        first = by_set.setdefault(index, request)
        if first.address != request.address:
            raise request.error(f"is in the same range set as {first.address} of {first.source}")
        if request.address in gateways:
            raise request.error("is a gateway")
    return tuple(request.address for request in by_set.values())


def _set_of(request: _Requested, range_sets: tuple[RangeSet, ...]) -> int:
    for index, range_set in enumerate(range_sets):
        if range_of(range_set, request.address) is not None:
            return index
    known = "; ".join(render_set(range_set) for range_set in range_sets)
    raise request.error(f"is in none of the range sets {known}")


def _read_resolv_conf(path: str) -> Dns:
    """The settings of a resolv.conf file; IpamError with code 5 if it cannot be read."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            content = file.read(RESOLV_CONF_MAX + 1) or b""
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot read ipam.resolvConf {path}", str(error)) from error
    if len(content) > RESOLV_CONF_MAX:
        raise IpamError(
            IO_FAILURE, f"ipam.resolvConf {path} is larger than {RESOLV_CONF_MAX} bytes"
        )
    return parse_resolv_conf(content.decode("utf-8", "replace"))


def _open_at_once(path: str, flags: int) -> int:
    # A FIFO in the file's place must not block the call.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def parse_resolv_conf(text: str) -> Dns:
    """The settings of a resolv.conf text, as host-local reads them: repeated lines add up."""
    values: dict[str, list[str]] = {"nameserver": [], "domain": [], "search": [], "options": []}
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if keyword in values and words:
            values[keyword] += words if keyword in ("search", "options") else words[:1]
    return Dns(
        nameservers=tuple(values["nameserver"]),
        domain=values["domain"][-1] if values["domain"] else None,
        search=tuple(values["search"]),
        options=tuple(values["options"]),
    )
