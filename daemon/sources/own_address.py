"""Which of its addresses other nodes reach this node by: the source of packets to a server."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from daemon.log import Log
from daemon.model import parse_node_address
from daemon.sources.remote import SourceError
from kernel.model import IPAddress, IPNetwork
from kernel.netlink.socket import open_netlink
from kernel.paths import local_addresses

_ADDR_PREFERENCES, _PREFER_PUBLIC = 72, 2  # linux/in6.h, IPV6_ADDR_PREFERENCES
# Documentation addresses (RFC 5737, RFC 3849): packets to them take the default route.
_ANYWHERE = ("udp://192.0.2.1:9", "udp://[2001:db8::1]:9")


def sources_to(url: str) -> Iterator[IPAddress]:
    """The source of packets to each address of a URL's host; none where no route leads there."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        targets = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, ValueError):
        return
    for family, kind, _, _, target in targets:
        try:
            with socket.socket(family, kind) as probe:
                if family == socket.AF_INET6:  # a temporary one is another tomorrow (RFC 8981)
                    probe.setsockopt(socket.IPPROTO_IPV6, _ADDR_PREFERENCES, _PREFER_PUBLIC)
                # No packet: the kernel only chooses the source address (udp(7)).
                probe.connect(target)
                yield parse_node_address(str(probe.getsockname()[0]))
        except (OSError, ValueError):  # no route there, or by the loopback
            continue


def own_addresses(endpoints: Iterable[str]) -> tuple[IPAddress, ...]:
    """The addresses from which etcd is reached, one of each family. Raises SourceError."""
    found: dict[int, IPAddress] = {}
    for endpoint in endpoints:
        for address in sources_to(endpoint):
            found.setdefault(address.version, address)
    if not found:
        raise SourceError(
            "this node's address is unknown, for no endpoint of etcd can be reached from it:"
            " set source.etcd.addresses"
        )
    return tuple(found[version] for version in sorted(found))


def are_lost(addresses: Sequence[IPAddress]) -> bool:
    """Whether this node has one of its addresses no longer. Raises KernelError, OSError."""
    # Not by binding to them: with ip_nonlocal_bind, as keepalived wants it, all can be bound.
    with open_netlink() as nl:
        return local_addresses(nl, addresses) != {*addresses}


class OwnAddress:
    """The choice among a Node's internal addresses.

    among: prefixes of the addresses that may be chosen; empty: any may.
    """

    def __init__(self, among: Sequence[IPNetwork], log: Log) -> None:
        self._among, self._log = among, log
        self._shown: dict[int, str] = {}

    def choose(self, candidates: Sequence[IPAddress], server: str) -> tuple[IPAddress, ...]:
        """One address of each family, in the order of the candidates. server: the API's URL.

        Of several it is the source of packets to the API server, else that of packets that take
        the default route, else the first.
        """
        usable = [a for a in candidates if not self._among or any(a in n for n in self._among)]
        by_family: dict[int, list[IPAddress]] = {}
        for address in usable:
            by_family.setdefault(address.version, []).append(address)
        return tuple(self._choose(found, server) for found in by_family.values())

    def _choose(self, found: list[IPAddress], server: str) -> IPAddress:
        if len(found) == 1:
            return found[0]
        by_server = _first(found, sources_to(server))
        chosen = by_server or _first(found, (a for url in _ANYWHERE for a in sources_to(url)))
        why = "the first, for no route leads to the API server"
        if chosen:
            why = "the API server" if by_server else "the default route"
            why = f"{why} is reached by it"
        self._show(found, chosen or found[0], why)
        return chosen or found[0]

    def _show(self, found: list[IPAddress], chosen: IPAddress, why: str) -> None:
        text = f"of the Node's InternalIPs {', '.join(map(str, found))} {chosen} is used: {why}"
        if self._shown.get(chosen.version) != text:
            self._shown[chosen.version] = text
            self._log.info(f"{text}; source.kubernetes.nodeAddresses decides otherwise")


def _first(found: list[IPAddress], sources: Iterable[IPAddress]) -> IPAddress | None:
    return next((source for source in sources if source in found), None)
