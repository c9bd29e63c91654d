"""The listening socket: taken from by several threads and processes, and drained at the end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from daemon.cni_server.listener import Listener
from daemon.log import Log


def connect(path: Path) -> socket.socket:
    with ExitStack() as stack:
        link = stack.enter_context(socket.socket(socket.AF_UNIX))
        link.connect(str(path))
        stack.pop_all()
    return link


@contextmanager
def listening(path: Path) -> Iterator[Listener]:
    with Listener() as listener:
        listener.listen(path)
        yield listener


def test_connections_that_wait_are_accepted_after_the_end(tmp_path: Path) -> None:
    """By whichever process; new ones are refused, and find no socket."""
    path = tmp_path / "s"
    with ExitStack() as stack, listening(path) as listener:
        first = stack.enter_context(listener.acceptor(Log()))
        second = stack.enter_context(listener.acceptor(Log()))
        for _ in range(3):
            stack.enter_context(connect(path))
        os.link(path, tmp_path / "found before")
        listener.shut_down()
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            connect(tmp_path / "found before")
        for acceptor in (first, second, first):
            connection = acceptor.accept()
            assert connection is not None
            stack.enter_context(connection)
        assert (first.accept(), second.accept()) == (None, None)


def test_the_end_wakes_all_that_wait(tmp_path: Path) -> None:
    with ExitStack() as stack, listening(tmp_path / "s") as listener:
        acceptors = [stack.enter_context(listener.acceptor(Log())) for _ in range(2)]
        with ThreadPoolExecutor(4) as threads:
            waiting = [threads.submit(acceptor.accept) for acceptor in acceptors * 2]
            time.sleep(0.05)
            assert not any(future.done() for future in waiting)
            listener.shut_down()
            assert [future.result(20) for future in waiting] == [None] * 4


def test_another_daemons_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(path) as listener:
        path.unlink()
        with listening(path):
            listener.shut_down()
            connect(path).close()


def test_any_number_of_threads_asks_whether_more_waits(tmp_path: Path) -> None:
    with listening(tmp_path / "s") as listener, listener.acceptor(Log()) as acceptor:
        assert not acceptor.has_more()
        start = threading.Barrier(4)

        def ask() -> bool:
            start.wait()
            return all(acceptor.has_more() for _ in range(3000))

        with connect(tmp_path / "s"), ThreadPoolExecutor(4) as threads:
            assert all(future.result() for future in [threads.submit(ask) for _ in range(4)])
            connection = acceptor.accept()
            assert connection is not None
            connection.close()
        assert not acceptor.has_more()
