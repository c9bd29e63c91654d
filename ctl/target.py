"""The destination of packets as a person writes it: DEST[:PORT][/PROTOCOL]; pure."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from daemon.options import Unusable

_PORT_MAX = 65535


class Target(NamedTuple):
    """host: a name or an address. port: 0 for none; protocol: empty for none."""

    host: str
    port: int
    protocol: str


def parse_target(text: str, protocols: Container[str]) -> Target:
    """A target; an IPv6 address with a port is in brackets. Raises Unusable."""
    name, _slash, protocol = text.rpartition("/")
    if not name or protocol not in protocols:
        name, protocol = text, ""
    host, _colon, port = name.rpartition(":")
    if name.startswith("["):  # an IPv6 address, whose port comes after the bracket
        host, port = (name, "") if name.endswith("]") else (host, port)
    elif not host or ":" in host or port.startswith("["):
        host, port = name, ""  # an IPv6 or MAC address, or net:[4026532000]
    if port and not (port.isdecimal() and 0 < int(port) <= _PORT_MAX):
        raise Unusable(f"{text!r}: the port {port!r} is not between 1 and {_PORT_MAX}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return Target(bare, int(port or 0), protocol)
