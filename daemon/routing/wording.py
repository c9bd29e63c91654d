"""How the journal and the log call what is in the kernel, and who changed it."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from kernel.model import TABLE_MAIN, FdbEntry, Neighbour, Route
from kernel.netlink.monitor import Event
from kernel.routes import Entry

# linux/rtnetlink.h, RTPROT_*, by iproute2's names.
_PROTOCOLS = {
    2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp",
    186: "bgp", 187: "isis", 188: "ospf", 192: "eigrp",
}  # fmt: skip
_PID_MAX = 1 << 22  # linux/threads.h, PID_MAX_LIMIT


def name_entry(entry: Entry) -> str:
    """What it is: "route 10.244.7.0/24"."""
    if isinstance(entry, Route):
        return f"route {entry.dst}"
    if isinstance(entry, Neighbour):
        return f"neighbour {entry.address}"
    return f"fdb {entry.mac}"


def tell_entry(entry: Entry | None) -> str:
    """How it is, in the words of iproute2; empty for what is not there."""
    if entry is None:
        return ""
    if isinstance(entry, Neighbour):
        return f"lladdr {entry.mac} dev {entry.link}"
    if isinstance(entry, FdbEntry):
        return " ".join(filter(None, (f"dst {entry.dst} dev {entry.link}", entry.more)))
    if not entry.link:
        return f"several next hops or none, proto {entry.protocol}"
    parts = ["local"] if entry.local else []
    parts += [f"via {entry.via}"] if entry.via else []
    parts.append(f"dev {entry.link}")
    parts += ["onlink"] if entry.onlink else []
    parts += [f"table {entry.table}"] if entry.table != TABLE_MAIN else []
    parts += [f"metric {entry.priority}"] if entry.priority else []
    return " ".join([*parts, f"proto {_PROTOCOLS.get(entry.protocol, entry.protocol)}"])


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
