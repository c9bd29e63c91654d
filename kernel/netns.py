"""Network namespaces: opened once, validated, entered by one thread for as short as possible."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from kernel.errors import KernelError, NotANamespace

CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_HERE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace(AbstractContextManager["Namespace"]):
    """An open network namespace. path: how its owner calls it (CNI_NETNS), for messages only."""

    def __init__(self, fd: int, path: str) -> None:
        """Take over the descriptor. Raises NotANamespace, and closes it, if it is another kind."""
        self.fd, self.path = fd, path
        try:
            kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != CLONE_NEWNET:
            os.close(fd)
            raise NotANamespace("open network namespace", path, 0, "it is no network namespace")

    def __exit__(self, *_exception: object) -> None:
        os.close(self.fd)

    def is_current(self) -> bool:
        """Whether the calling thread is in this very namespace."""
        mine, other = os.stat(_HERE), os.fstat(self.fd)
        return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)


def open_namespace(path: str) -> Namespace:
    """Open a namespace by path; never blocks, whatever kind of file is there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None) or errno.EINVAL
        raise NotANamespace("open network namespace", path, code) from error
    return Namespace(fd, path)


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """The calling thread is in the namespace for the duration; sockets opened there stay there."""
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(namespace.fd, namespace.path)
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


def _return(home: int) -> None:
    try:
        _setns(home, "the thread's own")
    except KernelError as error:
        # A thread that stays in a pod's namespace would set up the next pod in it. A process
        # that is killed loses nothing, so it ends.
        os.write(2, f"podwire: {error}; the process ends\n".encode())
        os.abort()


def _setns(fd: int, path: str) -> None:
    # os.setns came with Python 3.12.
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise KernelError("enter network namespace", path, ctypes.get_errno())
