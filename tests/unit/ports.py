"""Ports that a test binds later: the kernel gives none of them to anybody meanwhile."""

from __future__ import annotations

import random
import socket
from contextlib import closing
from pathlib import Path


def free_port(kind: socket.SocketKind, host: str) -> int:
    """A port that is free at the host, below those that the kernel chooses (ip(7))."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(10_000, lowest)
        with closing(socket.socket(family, kind)) as made:
            try:
                made.bind((host, port))
            except OSError:
                continue
            return port
