"""The addresses that this node tells the others: those from which it reaches etcd."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from daemon.model import parse_node_address
from daemon.sources.remote import SourceError
from kernel.model import IPAddress


def own_addresses(endpoints: Iterable[str]) -> tuple[IPAddress, ...]:
    """One of each family in which an endpoint can be reached. Raises SourceError."""
    found: dict[int, IPAddress] = {}
    for endpoint in endpoints:
        url = urlsplit(endpoint)
        for address in _sources(url.hostname or "", url.port or 0):
            found.setdefault(address.version, address)
    if not found:
        raise SourceError(
            "which address do other nodes reach this one by? etcd is not reached from one of them:"
            " set source.etcd.addresses"
        )
    return tuple(found[version] for version in sorted(found))


def _sources(host: str, port: int) -> Iterable[IPAddress]:
    try:
        targets = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return
    for family, kind, _, _, target in targets:
        try:
            with socket.socket(family, kind) as probe:
                # No packet: the kernel only chooses the source address (udp(7)).
                probe.connect(target)
                yield parse_node_address(str(probe.getsockname()[0]))
        except (OSError, ValueError):  # no way there, or by the loopback
            continue
