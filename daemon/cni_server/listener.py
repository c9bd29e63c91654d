"""The daemon's listening socket, made where root alone reaches it."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cni_plugin.errors import INVALID_ENVIRONMENT, IO_FAILURE, TRY_AGAIN, CniError
from daemon.files import identity_of, make_folder
from daemon.log import Log

BACKLOG = 1024
_PATH_MAX = 107  # sun_path, linux/un.h
_PROBE_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_DYING_SECONDS = 1.0


class Listener:
    """A socket whose connections several processes take, until one shuts it down.

    It is made before these are forked. One listens, and the others take connections from then on.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._path = Path()
        self._file: tuple[int, int] | None = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __str__(self) -> str:
        return str(self._path)

    def listen(self, path: Path) -> None:
        """Listen at a path that root alone can reach; a dead daemon's socket is replaced.

        Raises CniError where another daemon answers, where something else is in the place, or where
        others could put something there; OSError.
        """
        size = len(os.fsencode(path))
        if size > _PATH_MAX:
            msg = f"socket {path} cannot be: its path has {size} bytes"
            raise CniError(INVALID_ENVIRONMENT, msg, f"the kernel takes {_PATH_MAX} at most")
        make_folder(path.parent)
        with _folder_locked(path.parent):
            _clear(path)
            mask = os.umask(0o177)
            try:
                self._socket.bind(str(path))
            finally:
                os.umask(mask)
            self._socket.listen(BACKLOG)
            self._path, self._file = path, identity_of(path)

    def acceptor(self, log: Log) -> Acceptor:
        """What the calling process, which is forked already, takes connections by."""
        return Acceptor(self._socket, log)

    @property
    def is_in_place(self) -> bool:
        """Whether callers find it: the file may have been removed, or another's is there."""
        return identity_of(self._path) == self._file

    def shut_down(self) -> None:
        """Take no further connection, in no process; those that wait are still accepted.

        New calls go the standalone way at once: they find no socket, and a caller that has found
        it is refused (net/unix/af_unix.c, unix_stream_connect checks RCV_SHUTDOWN).
        """
        if self.is_in_place:
            self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Acceptor:
    """One process's end of the listening socket.

    Of the processes that wait the first to have registered is woken (epoll_ctl(2),
    EPOLLEXCLUSIVE): calls that come one after the other meet the same warm caches, while
    accept(2) itself would take turns.
    """

    def __init__(self, listening: socket.socket, log: Log) -> None:
        self._socket, self._log = listening, log
        self._epoll = select.epoll()
        self._epoll.register(listening, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._shut_down = False

    def __enter__(self) -> Acceptor:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()

    def has_more(self) -> bool:
        """Whether a connection waits."""
        return bool(self._epoll.poll(0, 1))  # unlike a poll object, for any number of threads

    def accept(self) -> socket.socket | None:
        """The next connection; None once the socket is shut down and no connection waits."""
        while True:
            try:
                return self._socket.accept()[0]
            except BlockingIOError:
                if self._shut_down:
                    return None
                # Once more after that: a connection may have come just before.
                self._shut_down = any(e & select.EPOLLHUP for _fd, e in self._epoll.poll(-1, 1))
            except OSError as error:
                self._log.error(f"accept: {error}")
                time.sleep(_PAUSE_SECONDS)


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Two daemons that start together must not replace each other's socket."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_folder(folder, os.fstat(fd))
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CniError(TRY_AGAIN, f"another podwired is starting in {folder}") from error
    finally:
        os.close(fd)


def _check_folder(folder: Path, status: os.stat_result) -> None:
    # In a sticky folder (/tmp) the kernel keeps others from replacing our socket.
    open_to_all = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if open_to_all or status.st_uid not in (0, os.geteuid()):
        why = "they could put a socket of theirs in the place of podwired's: chmod 700 it"
        raise CniError(IO_FAILURE, f"{folder} can be written by others than root", why)


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        why = "podwired replaces nothing but the socket of an earlier podwired"
        raise CniError(INVALID_ENVIRONMENT, f"{path} is no socket", why)
    until = time.monotonic() + _DYING_SECONDS
    while is_served(path):
        # The last of a daemon that was killed: its processes do not end at the same instant.
        if time.monotonic() > until:
            why = "stop it, or podwired.socket of an earlier version"
            raise CniError(INVALID_ENVIRONMENT, f"another podwired answers at {path}", why)
        time.sleep(_PAUSE_SECONDS)
    path.unlink()


def is_served(path: Path) -> bool:
    """Whether a daemon listens at that socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its queue is full
            return True
        return True
