"""The addresses of this node that the kernel chooses as source of packets to a server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from daemon.model import parse_node_address
from kernel.model import IPAddress


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
                # No packet: the kernel only chooses the source address (udp(7)).
                probe.connect(target)
                yield parse_node_address(str(probe.getsockname()[0]))
        except (OSError, ValueError):  # no route there, or by the loopback
            continue
