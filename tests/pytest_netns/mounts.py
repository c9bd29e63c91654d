"""The mounts of a node: made by system calls, for a dozen programs a node would take longer."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x20000
MS_BIND, MS_MOVE, MS_REC, MS_SLAVE = 0x1000, 0x2000, 0x4000, 0x80000

_libc = ctypes.CDLL(None, use_errno=True)


def make() -> int:
    """Give the calling thread mounts of its own; a descriptor that keeps them.

    `/run` and `/var/lib` are empty, `/run/netns` is the machine's, `/sys` that of the thread's
    network namespace. The thread must end then: it sees these for good.
    """
    # A thread that gets mounts of its own gets a working directory of its own, too (unshare(2)).
    if _libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare mounts")
    # Names that appear in or vanish from /run/netns do so here too, and nothing gets out.
    _mount("none", "/", MS_REC | MS_SLAVE)
    _mount("podwire-test", "/var/lib", kind="tmpfs")
    for kept, name in (("/run/netns", "netns"), ("/sys/fs/cgroup", "cgroup")):
        _mount(kept, f"/var/lib/keep/{name}", MS_BIND | MS_REC)
    _mount("podwire-test", "/run", kind="tmpfs")
    _mount("/var/lib/keep/netns", "/run/netns", MS_MOVE)
    _mount("podwire-test", "/sys", kind="sysfs")
    _mount("/var/lib/keep/cgroup", "/sys/fs/cgroup", MS_MOVE)
    for name in ("netns", "cgroup", "."):
        Path("/var/lib/keep", name).rmdir()
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _mount(source: str, target: str, flags: int = 0, kind: str = "none") -> None:
    """mount(2), where the target is a folder that may have to be made. Raises OSError."""
    Path(target).mkdir(parents=True, exist_ok=True)
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), f"mount {source}", target)
