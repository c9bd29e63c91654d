"""How the journal and the log name who changed something in the kernel."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from kernel.netlink.monitor import Event

_PID_MAX = 1 << 22  # linux/threads.h, PID_MAX_LIMIT


_UNSIGNED = frozenset({"link", "fdb"})


def tell_change(change: str, event: Event) -> str:
    """A change and who made it: "removed by pid 4711 (ip)", or "removed" where nobody can know."""
    # Of links the kernel names whoever asked for an echo alone (net/core/rtnetlink.c,
    # rtmsg_ifinfo_build_skb), of FDB entries nobody (drivers/net/vxlan, vxlan_fdb_notify).
    if not event.port and event.kind in _UNSIGNED:
        return change
    return f"{change} by {name_author(event.port)}"


def name_author(port: int) -> str:
    """Who has a netlink port: the kernel, or a process, which may have ended meanwhile.

    A process gets its ID as the port of its first socket (netlink(7)), and anything for others.
    """
    # Thousands of events come from one author; a second later its number may be another's.
    return _name_author(port, int(time.monotonic()))


@lru_cache(maxsize=64)
def _name_author(port: int, _second: int) -> str:
    if port == 0:
        return "the kernel"
    if port > _PID_MAX:
        return f"a process (netlink port {port})"
    try:
        return f"pid {port} ({Path(f'/proc/{port}/comm').read_text().strip()})"
    except (OSError, UnicodeDecodeError):
        return f"pid {port}"
