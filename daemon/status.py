"""The status of the daemon: a file that it keeps current, for `podwirectl status`."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from daemon.files import identity_of, make_folder, replace_file
from daemon.probes.report import HealthReport, parse_report

if TYPE_CHECKING:
    from filelock import FileLock

HEARTBEAT = 10.0
"""Seconds after which the file is written even if nothing changed."""
STALE = 3 * HEARTBEAT
"""Seconds after which a daemon that has not written is stuck."""
_NAMED = 3
"""Prefixes that are named in one line; of more than these, the number is given."""
_HEAD = {"pid", "time", "uptime"}
OtherPart = Literal[
    "routes",
    "paths",
    "firewall",
    "attachments",
    "unchecked",
    "filter",
    "policy",
    "limit",
    "pods",
    "unwired",
    "ranges",
    "tables",
    "disk",
    "source",
    "cluster",
    "conflist",
    "takeover",
    "programs",
    "journal",
    "metrics",
    "calls",
]
"""What may have a fault beside the node, in the order in which faults are shown."""
_BEGINNINGS: Mapping[OtherPart, str] = {
    "routes": "routes are not reconciled: ",
    "filter": "VXLAN and probes are taken from anybody: ",
    "policy": "network policies: ",
    "source": "the last good state is in use: ",
    "cluster": "no state of the cluster is known: ",
    "conflist": "no CNI configuration: ",
    "journal": "the journal is incomplete: ",
}
PARTS: Mapping[str, str] = {part: _BEGINNINGS.get(part, "") for part in get_args(OtherPart)}
"""How the finding of each of them begins."""
_LOCK_SECONDS, _LOCK_INTERVAL = 1.0, 0.01  # readers hold the lock for an instant


class AnotherDaemon(Exception):
    """Another daemon keeps this status file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"another podwired holds {self.path}.lock: stop it, or give this one a statusFile, "
            "socket and dataDir of its own"
        )


class NoStatus(Exception):
    """There is no status file, or none that can be read; `why` says which."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A prefix that is not routed, or not all of it; empty for all prefixes of the node."""

    node: str
    prefix: str
    why: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The state of one node's routing.

    wanted, in_sync: how many entries (routes, neighbours, FDB entries) are desired, and how many of
    them the kernel has so; attachments, attachments_in_sync: the same of this node's pods.
    mtu: of pods' links, in bytes. underlay: this node's address there, and the link that packets to
    other nodes leave by. fault: why the node itself is not ready; empty while it is.
    faults: what is wrong with a part that pods can do without for a while (`PARTS`).
    tolerated: prefixes that are routed, although a network of this node overlaps them.
    dropped: packets that the filter of peers dropped, by reason (kernel.nftables.peer_filter).
    health: whether other nodes are reachable; None where they are not probed. An unreachable node
    is no trouble of this one.
    last_error, with its time in seconds since 1970, stays after the error is over, which it was at
    last_error_over (0 while it lasts).
    """

    node: str
    backend: str
    source: str
    peers: int = 0
    wanted: int = 0
    in_sync: int = 0
    attachments: int = 0
    attachments_in_sync: int = 0
    mtu: int = 0
    underlay: str = ""
    prefixes: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    tolerated: tuple[Refused, ...] = ()
    fault: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    health: HealthReport | None = None
    last_error: str = ""
    last_error_time: float = 0.0
    last_error_over: float = 0.0

    @property
    def troubles(self) -> tuple[str, ...]:
        """All that keeps this node from being as its configuration and the cluster demand."""
        missing = self.wanted - self.in_sync
        texts = (
            self.fault and f"the node is not ready: {self.fault}",
            missing and f"{missing} of {self.wanted} entries are not as planned",
            *(f"{text}{self.faults[part]}" for part, text in PARTS.items() if part in self.faults),
            self.refused and f"refused prefixes: {len(self.refused)}",
            self.tolerated and _describe_tolerated(self.tolerated),
        )
        return tuple(text for text in texts if text)


@dataclass(frozen=True, slots=True)
class Published:
    """A status as found in its file. age: seconds since it was written.

    running: the daemon that wrote it has not ended. suspended: a signal has stopped it, as far as
    its process can be seen from here.
    """

    status: NodeStatus
    pid: int
    time: float
    age: float
    running: bool
    suspended: bool = False

    @property
    def is_current(self) -> bool:
        """Whether the daemon still keeps it so."""
        return self.running and not self.suspended and 0 <= self.age <= STALE


def _describe_tolerated(tolerated: tuple[Refused, ...]) -> str:
    named = [f"{t.prefix} of {t.node} {t.why}" for t in tolerated[:_NAMED]]
    more = [f"{len(tolerated) - _NAMED} more prefixes"] if len(tolerated) > _NAMED else []
    return f"overlapping networks of this node: {'; '.join([*named, *more])}"


class StatusFile:
    """The writer. It holds a lock while it lives: one daemon alone writes, and a reader can tell
    whether the daemon was killed."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises AnotherDaemon, OSError."""
        make_folder(path.parent)
        self._path, self._written = path, 0.0
        self._last: NodeStatus | None = None
        self._lock = _take_lock(path)
        self._place = identity_of(_lock_of(path))

    @property
    def is_in_place(self) -> bool:
        """Whether the lock still keeps other daemons away: a file that was removed does not."""
        return identity_of(_lock_of(self._path)) == self._place

    def write(self, status: NodeStatus) -> None:
        """Write a status, unless the file has the same and is fresh. Raises OSError."""
        is_fresh = status == self._last and time.monotonic() - self._written < HEARTBEAT
        if is_fresh and self._path.exists():
            return
        head = {"pid": os.getpid(), "time": time.time(), "uptime": _uptime()}
        content = json.dumps({**head, **as_json(status)}, indent=1).encode() + b"\n"
        replace_file(self._path, content, 0o600)
        self._last, self._written = status, time.monotonic()

    def close(self) -> None:
        """Remove the status, drop the lock."""
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()


def read_status(path: Path) -> Published:
    """The status of a node. Raises NoStatus, OSError."""
    raw = _read(path)
    try:
        # Seconds since boot, which no change of the clock moves; less than then: a reboot.
        age = _uptime() - float(raw["uptime"])
        running = _is_locked(path)
        stopped = running and _is_suspended(raw["pid"])
        published = Published(_parse(raw), raw["pid"], raw["time"], age, running, stopped)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NoStatus(f"{path} was written by another version of podwired") from error
    return published


def _read(path: Path) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO or a device may have no end
            what = "a directory" if path.is_dir() else "no file"
            raise NoStatus(f"{path} is {what}, and so no status of podwired")
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoStatus(f"there is no {path}") from error
    except (ValueError, RecursionError) as error:
        raise NoStatus(f"{path} is no status of podwired: {error}") from error
    if not isinstance(raw, dict) or len(raw.keys() & _HEAD) < 2:
        raise NoStatus(f"{path} is no status of podwired")
    return raw


def _parse(raw: Mapping[str, Any]) -> NodeStatus:
    values = {field.name: raw[_camel(field.name)] for field in fields(NodeStatus)}
    for name in ("refused", "tolerated"):
        values[name] = tuple(Refused(**item) for item in values[name])
    values["prefixes"], values["faults"] = tuple(values["prefixes"]), dict(values["faults"])
    values["health"] = parse_report(values["health"]) if values["health"] else None
    return NodeStatus(**values)


def as_json(status: NodeStatus) -> dict[str, Any]:
    """The status with the key names of podwired.yaml's kind: inSync."""
    return {_camel(name): value for name, value in asdict(status).items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _take_lock(path: Path) -> FileLock:
    """A lock that the kernel drops when its holder is killed: flock(2)."""
    from filelock import FileLock, Timeout  # here, for readers of a status have no use for it

    # Where there is no flock, an error: a lock that is a mere file would outlive its holder.
    lock = FileLock(
        _lock_of(path),
        timeout=_LOCK_SECONDS,
        mode=0o600,
        thread_local=False,
        poll_interval=_LOCK_INTERVAL,
        fallback_to_soft=False,
    )
    try:
        lock.acquire()
    except Timeout as error:
        raise AnotherDaemon(path) from error
    return lock


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(_lock_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_suspended(pid: int) -> bool:
    """Whether a signal (SIGSTOP) or a debugger keeps this podwired from running.

    In another namespace of process IDs the number is another process's, or none's.
    """
    try:
        folder = Path(f"/proc/{int(pid)}")
        if b"podwired" not in (folder / "cmdline").read_bytes():
            return False
        # proc(5): the state follows the name, which may have blanks and parentheses.
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return False
    return state in ("T", "t")
