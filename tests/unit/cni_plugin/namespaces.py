"""Network namespaces without names: gone with their last descriptor, whatever stops the tests."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def enter_new() -> None:
    """The calling thread, and the processes it starts, leave for an empty network namespace."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: network namespaces need root")


def open_current() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def elsewhere() -> Iterator[None]:
    """The calling thread is in an empty network namespace of its own."""
    home = open_current()
    try:
        enter_new()
        try:
            yield
        finally:
            if _libc.setns(home, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(home)


def make() -> int:
    """A descriptor of a new, empty network namespace."""
    with elsewhere():
        return open_current()
