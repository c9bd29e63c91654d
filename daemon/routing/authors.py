"""Who changed an object of the kernel, by the netlink port of an event."""

from __future__ import annotations

import os
import re
import time
from functools import cache, lru_cache
from pathlib import Path

from kernel.netlink.monitor import Event

PID_MAX = 1 << 22  # linux/threads.h, PID_MAX_LIMIT
_NODE_PROCESSES = 0xEFFFFFFC  # linux/proc_ns.h, PROC_PID_INIT_INO
_UNSIGNED = frozenset({"link", "fdb"})
_KERNEL = "the kernel"
_AUTHORED = re.compile(
    rf"([\w ]+ by (?:{_KERNEL}|a process \(netlink port \d+\)|pid \d+(?: \(.*\))?))"
    r"(?:, \d+ times now|$)"
)
_PARENTS = re.compile(r"^Tgid:\s*(\d+)$.*?^PPid:\s*(\d+)$", re.MULTILINE | re.DOTALL)


def describe_event(change: str, event: Event) -> str:
    """A change and its author: "removed by pid 4711 (ip)", or "removed" where that is unknown."""
    # Of links the kernel names only an author that asked for an echo (net/core/rtnetlink.c,
    # rtmsg_ifinfo_build_skb), of FDB entries none (drivers/net/vxlan, vxlan_fdb_notify).
    if not event.port and event.kind in _UNSIGNED:
        return change
    return f"{change} by {name_author(event.port)}"


def authored_part(cause: str) -> str:
    """The change and its author in the cause of a record of the journal; empty without author."""
    found = _AUTHORED.match(cause)
    return found[1] if found else ""


def is_by_kernel(cause: str) -> bool:
    """Whether the kernel made the change itself, because of another one."""
    return authored_part(cause).endswith(f" by {_KERNEL}")


def name_author(port: int) -> str:
    """The owner of a netlink port: the kernel, or a process, which may have ended meanwhile.

    The port of a process's first socket is its ID (netlink(7)), that of others any number.
    """
    # Thousands of events have one author; a second later its ID may be another process's.
    return _name_author(port, int(time.monotonic()))


@lru_cache(maxsize=64)
def _name_author(port: int, _second: int) -> str:
    if port == 0:
        return _KERNEL
    if port > PID_MAX:
        return f"a process (netlink port {port})"
    if _has_own_process_ids():  # /proc has other processes by those of the node
        return f"pid {port}"
    try:
        return f"pid {port} ({Path(f'/proc/{port}/comm').read_text().strip()})"
    except (OSError, UnicodeDecodeError):
        return f"pid {port}"


def is_own(port: int) -> bool:
    """Whether a netlink port is a thread of this process, or of one that it forked.

    The kernel names the thread that changed nftables (net/netfilter/nf_tables_api.c,
    nf_tables_fill_gen_info, task_pid_nr). One that has ended meanwhile counts as another's, and in
    a container every one: there the numbers are the host's, and /proc has others.
    """
    return not _has_own_process_ids() and _is_own(port, os.getpid(), int(time.monotonic()))


@lru_cache(maxsize=64)
def _is_own(port: int, process: int, _second: int) -> bool:
    try:
        found = _PARENTS.search(Path(f"/proc/{port}/status").read_text())
    except (OSError, UnicodeDecodeError):
        return False
    return found is not None and process in map(int, found.groups())


@cache
def _has_own_process_ids() -> bool:
    """Whether this process is in a container where process IDs are other ones than on the node."""
    return os.stat("/proc/self/ns/pid").st_ino != _NODE_PROCESSES
