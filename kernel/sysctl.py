"""Kernel settings below /proc/sys of the calling thread's network namespace."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from kernel.errors import KernelError
from kernel.model import Sysctl

# A link whose routes are ours takes none from router advertisements, and its link-local address is
# usable at once (no duplicate address detection): the node forwards IPv6 to pods from it.
_OWN_LINK = ("accept_ra", "accept_dad")
_DOTTED = str.maketrans("/.", "./")
_LONGEST = 4096  # bytes; the settings that podwire knows are numbers
# Container runtimes mount a container's own /proc/sys read-only, and refuse any other mount there.
# Of one mounted elsewhere the kernel shows the caller's namespace, too (net/sysctl_net.c).
_WRITABLE = "/host/proc/sys"


def read_sysctl(path: str) -> str | None:
    """The value, its fields divided by blanks; None where the kernel has no such setting."""
    try:
        fd = os.open(f"/proc/sys/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return " ".join(os.read(fd, _LONGEST).decode(errors="replace").split())
    except OSError:
        return None
    finally:
        os.close(fd)


def apply_sysctl(setting: Sysctl, *, fresh: bool = False) -> None:
    """Write a setting unless it has the value already (/proc/sys may be read-only then).

    fresh: of a link that was just created, whose default value is hardly the one.
    """
    if not fresh and read_sysctl(setting.path) == setting.value:
        return
    try:
        fd = _open_to_write(setting.path)
        try:
            os.write(fd, setting.value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if setting.required and (found := read_sysctl(setting.path)) != setting.value:
            raise _unwritable(setting, found, error.errno or 0) from error


def _open_to_write(path: str) -> int:
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/sys/{path}", flags)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        with suppress(OSError):
            return os.open(f"{_WRITABLE}/{path}", flags)
        raise


def _unwritable(setting: Sysctl, found: str | None, number: int) -> KernelError:
    what = f"{dotted(setting.path)}={setting.value}"
    hint = "" if found is None else f"it is {found}: set it yourself"
    if number == errno.ENOENT:
        hint = "this kernel has no such setting"
    return KernelError("set sysctl", what, number, hint)


def explain_silence() -> str:
    """Why this node answers no ARP for the gateway of routed pods; empty where it does.

    Of a link's arp_ignore and that of `all` the larger one holds (linux/inetdevice.h,
    IN_DEV_ARP_IGNORE). The gateway is no address of the pods' subnet, which 2 asks for; with 8 no
    ARP is answered at all.
    """
    value = read_sysctl("net/ipv4/conf/all/arp_ignore")
    if value not in ("2", "8"):
        return ""
    return (
        f"net.ipv4.conf.all.arp_ignore={value} overrules what pods' links have: they get no answer"
        " to ARP for their gateway: set it to 0 or 1"
    )


def dotted(path: str) -> str:
    """A setting as sysctl(8) names it; a dot in a link's name becomes a slash."""
    return path.translate(_DOTTED)


def prepare_own_link(name: str) -> None:
    """Set what a bridge or tunnel of podwire's needs before it comes up, where IPv6 is there."""
    for setting in _OWN_LINK:
        apply_sysctl(Sysctl(f"net/ipv6/conf/{name}/{setting}", "0", required=False))
