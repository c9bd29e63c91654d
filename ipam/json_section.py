"""Typed reading of decoded JSON: every wrong type is an error that names the key and the value.

Keys match as Go's encoding/json matches them: exactly, else without regard to case. `null` is
the same as absent. The path of the whole configuration is empty.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_interface
from typing import TypeVar

from ipam.errors import ConfigError
from ipam.ranges import IPAddress, IPInterface, IPNetwork, interface_of

T = TypeVar("T")

LONGEST_SHOWN = 80
INT_MAX = 2**32 - 1


def show(value: object) -> str:
    """The value as messages quote it, cut to a sane length and depth."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = shown.maxlong = LONGEST_SHOWN
    try:
        text = shown.repr(value)
    except ValueError:  # a number of more than 4300 digits
        text = type(value).__name__
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def parse_address(text: str) -> IPAddress:
    """An address without zone; an IPv4-mapped one is its IPv4 address. Raises ValueError."""
    if "%" in text or "/" in text:
        raise ValueError(f"{show(text)} is not an IP address")
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def parse_address_with_prefix(text: str) -> IPAddress:
    """`a.b.c.d` or `a.b.c.d/24`; the prefix length is checked and dropped. Raises ValueError."""
    address, slash, prefix = text.partition("/")
    if slash:
        _check_prefix(text, prefix)
        ip_interface(text)
    return parse_address(address)


def _parse_interface(text: str) -> IPInterface:
    return interface_of(parse_address_with_prefix(text), ip_interface(text).network.prefixlen)


def parse_network(text: str, *, mask_host_bits: bool = False) -> IPNetwork:
    """`address/prefix length`, nothing else that Python would take. Raises ValueError."""
    address, _, prefix = text.partition("/")
    _check_prefix(text, prefix)
    if "%" in text or parse_address(address) != ip_address(address):
        raise ValueError(f"{show(text)} is not a subnet in CIDR notation")
    network = ip_interface(text).network
    if not mask_host_bits and network.network_address != ip_address(address):
        raise ValueError(f"{show(text)} has host bits set; the subnet is {network}")
    return network


def _check_prefix(text: str, prefix: str) -> None:
    if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3):
        raise ValueError(f"{show(text)} is not in CIDR notation (address/prefix length)")


@dataclass(frozen=True, slots=True)
class Section:
    """One JSON object and its place in the configuration, such as `ipam.ranges[0][1]`."""

    path: str
    values: Mapping[str, object]

    @classmethod
    def of(cls, path: str, value: object) -> Section:
        """The object at `path`; ConfigError if it is anything else."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{path} is {show(value)}, must be an object")
        return cls(path, value)

    def get(self, key: str) -> object:
        """The value of the key, None if it is absent."""
        value = self.values.get(key)
        if value is None:
            folded = key.lower()
            for name, other in self.values.items():
                if other is not None and name.lower() == folded:
                    value = other
        return value

    def name(self, key: str) -> str:
        """The key with its place, for messages."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, value: object, must: str) -> ConfigError:
        """An error with the value and what it must be."""
        return ConfigError(f"{self.name(key)} is {show(value)}, must be {must}")

    def section(self, key: str) -> Section:
        """An object; absent is empty."""
        value = self.get(key)
        return Section.of(self.name(key), {} if value is None else value)

    def boolean(self, key: str) -> bool | None:
        """true or false."""
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.fail(key, value, "true or false")

    def string(self, key: str) -> str | None:
        """Any string."""
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.fail(key, value, "a string")

    def choice(self, key: str, words: Sequence[str]) -> str | None:
        """One of a few strings."""
        value = self.string(key)
        if value is None or value in words:
            return value
        raise self.fail(key, value, "one of " + ", ".join(filter(None, words)))

    def text(self, key: str) -> str | None:
        """A string without NUL; the empty one counts as absent."""
        value = self.string(key)
        if value and "\0" in value:
            raise self.fail(key, value, "a string without NUL")
        return value or None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(self._text_item(key, item) for item in self.items(key))

    def _text_item(self, key: str, item: object) -> str:
        if not isinstance(item, str):
            raise self.fail(key, item, "a list of strings")
        return item

    def items(self, key: str) -> list[object]:
        """A list of anything; absent is empty."""
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise self.fail(key, value, "a list")
        return list(value)

    def sections(self, key: str) -> Iterator[Section]:
        """A list of objects."""
        for index, item in enumerate(self.items(key)):
            yield Section.of(f"{self.name(key)}[{index}]", item)

    def integer(self, key: str, lowest: int = 0, highest: int = INT_MAX) -> int | None:
        """A whole number within the bounds."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, value, "a whole number")
        if not lowest <= value <= highest:
            raise self.fail(key, value, f"between {lowest} and {highest}")
        return value

    def seconds(self, key: str) -> float | None:
        """A finite number of seconds, not negative."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, value, "a number of seconds")
        if not 0 <= value <= INT_MAX:
            raise self.fail(key, value, f"between 0 and {INT_MAX} seconds")
        return float(value)

    def address(self, key: str) -> IPAddress | None:
        """An IP address."""
        return self._parsed(key, parse_address, "an IP address")

    def interface(self, key: str) -> IPInterface | None:
        """An address with the prefix length of its subnet."""
        return self._parsed(key, _parse_interface, "an address in CIDR notation")

    def _parsed(self, key: str, parse: Callable[[str], T], must: str) -> T | None:
        text = self.text(key)
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise self.fail(key, text, must) from error

    def network(self, key: str, *, mask_host_bits: bool = False) -> IPNetwork | None:
        """A subnet in CIDR notation."""
        text = self.text(key)
        try:
            return parse_network(text, mask_host_bits=mask_host_bits) if text else None
        except ValueError as error:
            raise ConfigError(f"{self.name(key)}: {error}") from error


@dataclass(frozen=True, slots=True)
class Dns:
    """DNS settings that the result hands to the runtime."""

    nameservers: tuple[str, ...] = ()
    domain: str | None = None
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_dns(section: Section) -> Dns:
    """The `dns` object of a configuration; raises ConfigError."""
    return Dns(
        nameservers=section.texts("nameservers"),
        domain=section.string("domain") or None,
        search=section.texts("search"),
        options=section.texts("options"),
    )


ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
"""The numbers of a route, all optional; they came with CNI 1.1.0."""


@dataclass(frozen=True, slots=True)
class CniRoute:
    """A route of a configuration, or of a result."""

    dst: IPNetwork
    gw: IPAddress | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


def parse_route(section: Section) -> CniRoute:
    """A route of a configuration, or of a result; raises ConfigError."""
    dst = section.network("dst", mask_host_bits=True)
    if dst is None:
        raise section.fail("dst", section.get("dst"), "a destination in CIDR notation")
    numbers = (section.integer(key) for key in ROUTE_NUMBERS)
    return CniRoute(dst, section.address("gw"), *numbers)
