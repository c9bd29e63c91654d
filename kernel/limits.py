"""Tables of the kernel that may be full, and what is left for files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NEIGHBOURS = (("IPv4", "arp_cache"), ("IPv6", "ndisc_cache"))
_DISK_MIN = 8 << 20  # bytes that a store needs to grow and to commit
SCARCE, FULL = 0.9, 0.98
"""Shares from which on a table is scarce, and as good as full: entries come and go all the time."""


@dataclass(frozen=True, slots=True)
class Level:
    """How full something is. name: a noun with what it holds; setting: what bounds it."""

    name: str
    used: int
    size: int
    setting: str

    @property
    def share(self) -> float:
        """How much of it is used."""
        return self.used / self.size

    def __str__(self) -> str:
        what = f"{self.used} of {self.size} {self.name}: "
        if self.share < FULL:
            return f"{what}nearly full"
        return f"{what}new ones are refused, and their packets dropped"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return f"raise {self.setting}, or find what fills it"


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of a folder. lacks: bytes that a store needs there to go on."""

    folder: Path
    lacks: int = 0
    is_read_only: bool = False

    @property
    def fault(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if not self.is_read_only and not self.lacks:
            return ""
        state = "read-only" if self.is_read_only else "full"
        lost = "new pods get no address, and changes are not recorded"
        return f"the file system of {self.folder} is {state}: {lost}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.is_read_only:
            return "dmesg may say why; mount -o remount,rw"
        return "free some megabytes there"


def read_levels(permanent: int = 0) -> Iterator[Level]:
    """The tables of connections and neighbours, as far as this namespace shows them.

    permanent: neighbours that the kernel never counts against the bound (net/core/neighbour.c,
    neigh_alloc).
    """
    folder = "/proc/sys/net/netfilter"
    used, size = (_number(f"{folder}/nf_conntrack_{name}") for name in ("count", "max"))
    if size:
        yield Level("tracked connections", used, size, "net.netfilter.nf_conntrack_max")
    for name, table in _NEIGHBOURS:
        # Both are the first namespace's alone.
        family = name.lower()
        size = _number(f"/proc/sys/net/{family}/neigh/default/gc_thresh3")
        used = _entries(Path(f"/proc/net/stat/{table}"))
        if size and used:
            setting = f"net.{family}.neigh.default.gc_thresh3"
            yield Level(f"{name} neighbours", max(0, used - permanent), size, setting)


def read_disk(folder: Path) -> Disk | None:
    """The file system of a folder; None where there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize
    if found.f_files and not found.f_favail:
        free = 0
    return Disk(folder, max(0, _DISK_MIN - free), bool(found.f_flag & os.ST_RDONLY))


def read_descriptors(pid: int) -> Level | None:
    """The open files of a process; None where it cannot be seen."""
    try:
        used = len(os.listdir(f"/proc/{pid}/fd"))
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        size = next(int(line.split()[3]) for line in lines if line.startswith("Max open files"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return Level(f"open files of podwired (pid {pid})", used, size, "LimitNOFILE of its unit")


def _number(path: str) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return 0


def _entries(path: Path) -> int:
    """The first column of the first line, in hexadecimal: all processors have the same."""
    try:
        return int(path.read_text().splitlines()[1].split()[0], 16)
    except (OSError, ValueError, IndexError):
        return 0
