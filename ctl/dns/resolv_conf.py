"""A pod's /etc/resolv.conf: read from its root, and which names its resolver tries.

Pods are hostile: the file may be a link, a pipe, or endless.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kernel.model import IPAddress

PATH = "etc/resolv.conf"
_READ_MAX = 64 << 10  # bytes
# linux/openat2.h; its number is the same on every architecture.
_OPENAT2, _RESOLVE_IN_ROOT, _RESOLVE_NO_MAGICLINKS = 437, 0x10, 0x02
# resolv.conf(5), resolv.h: MAXNS, RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY.
_SERVERS_MAX, _NDOTS_MAX, _TIMEOUT_MAX, _ATTEMPTS_MAX = 3, 15, 30, 5
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """A resolver's settings, as glibc takes them. timeout: in seconds."""

    servers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5.0
    attempts: int = 2
    one_by_one: bool = False

    def candidates(self, name: str) -> list[str]:
        """The names that are tried for one, in order, without the dot at their end."""
        plain = name.rstrip(".")
        if name.endswith("."):
            return [plain]
        searched = [f"{plain}.{domain}" for domain in self.search]
        first = plain.count(".") >= self.ndots
        return list(dict.fromkeys([plain, *searched] if first else [*searched, plain]))


def parse(text: str) -> ResolvConf:
    """The settings in a file's text; lines that say nothing valid are passed over."""
    servers: list[IPAddress] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        if line[:1] in ("#", ";"):
            continue
        key, *values = line.split() or [""]
        if key == "nameserver" and values and len(servers) < _SERVERS_MAX:
            servers += _server(values[0])
        elif key in ("search", "domain") and values:
            search = tuple(domain.rstrip(".") for domain in values if domain.rstrip("."))
        elif key == "options":
            options += values
    return _with_options(ResolvConf(tuple(servers), search), options)


def _server(text: str) -> Iterable[IPAddress]:
    try:
        return [ip_address(text)]
    except ValueError:
        return []


def _with_options(conf: ResolvConf, options: Iterable[str]) -> ResolvConf:
    numbers = {"ndots": conf.ndots, "timeout": int(conf.timeout), "attempts": conf.attempts}
    most = {"ndots": _NDOTS_MAX, "timeout": _TIMEOUT_MAX, "attempts": _ATTEMPTS_MAX}
    one_by_one = False
    for option in options:
        name, _, value = option.partition(":")
        if name in numbers and value.isascii() and value.isdigit() and len(value) < 6:
            numbers[name] = min(int(value), most[name])
        one_by_one |= name in ("single-request", "single-request-reopen")
    timeout, attempts = max(1, numbers["timeout"]), max(1, numbers["attempts"])
    return ResolvConf(conf.servers, conf.search, numbers["ndots"], timeout, attempts, one_by_one)


def read_of(processes: Iterable[int]) -> tuple[str, int] | None:
    """The text of the file that processes of a pod see, and which one; None where none does.

    A process with a root of its own counts before one that sees the node's.
    """
    for process in sorted(processes, key=lambda p: (not _has_own_root(p), -p)):
        text = _read(Path(f"/proc/{process}/root"))
        if text is not None:
            return text, process
    return None


def _has_own_root(process: int) -> bool:
    try:
        mine, other = os.stat("/"), os.stat(f"/proc/{process}/root/.")
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) != (other.st_dev, other.st_ino)


def _read(root: Path) -> str | None:
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fd = _open_inside(top)
    finally:
        os.close(top)
    if fd < 0:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, _READ_MAX).decode(errors="replace") if is_file else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _open_inside(top: int) -> int:
    """Open the file as a process with that root would: no link of the pod's leads out of it."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return int(_libc.syscall(_OPENAT2, top, PATH.encode(), how, len(how)))
