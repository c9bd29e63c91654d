"""The watchdog is fed only while every loop makes progress."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.liveness import watchdog as module
from daemon.liveness.watchdog import LIMIT, Watchdog
from daemon.log import Log


class Clock:
    """The monotonic clock, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield made


def is_fed(watchdog: Watchdog, manager: socket.socket) -> bool:
    watchdog.check()
    try:
        return manager.recv(100) == b"WATCHDOG=1"
    except BlockingIOError:
        return False


def watched(env: dict[str, str] | None = None) -> Watchdog:
    return Watchdog(Log(), {"WATCHDOG_USEC": "30000000"} if env is None else env)


def test_one_loop_that_is_stuck_keeps_it_from_being_fed(
    clock: Clock, manager: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    watchdog = watched()
    loops = [watchdog.add(name) for name in ("routing", "probes", "never started")]
    for loop in loops[:2]:
        loop.beat()
    assert is_fed(watchdog, manager)
    clock.now += LIMIT - 1
    assert is_fed(watchdog, manager)
    loops[0].beat()
    clock.now += 2
    assert not is_fed(watchdog, manager)
    assert not is_fed(watchdog, manager)
    err = capfd.readouterr().err
    assert err.count("no progress: probes; systemd restarts podwired") == 1
    assert "never started" not in err
    loops[1].beat()
    assert is_fed(watchdog, manager)


def test_a_watchdog_that_is_not_checked_is_stuck_itself(clock: Clock) -> None:
    """Other threads see it; to systemd it is silent."""
    watchdog = watched({})
    clock.now += LIMIT + 1
    assert watchdog.describe_stall() == ""  # the daemon is starting
    assert watchdog.check() == watchdog.describe_stall() == ""
    clock.now += LIMIT + 1
    assert watchdog.describe_stall() == "no progress: main thread"


def test_a_loop_that_ended_is_not_stuck(clock: Clock, manager: socket.socket) -> None:
    watchdog = watched()
    loop = watchdog.add("calls of process 2")
    loop.beat()
    clock.now += LIMIT + 1
    assert not is_fed(watchdog, manager)
    loop.end()
    assert is_fed(watchdog, manager)


def test_a_loop_may_ask_for_more_time(clock: Clock, manager: socket.socket) -> None:
    watchdog = watched()
    watchdog.add("source").beat(3 * LIMIT)
    clock.now += 2 * LIMIT
    assert is_fed(watchdog, manager)
    clock.now += 2 * LIMIT
    assert not is_fed(watchdog, manager)
    watchdog.add("source").beat()  # the same, though its thread is another one
    assert is_fed(watchdog, manager)


def test_progress_in_another_process_counts(clock: Clock, manager: socket.socket) -> None:
    watchdog = watched()
    loop = watchdog.add("calls of process 2")
    loop.beat()
    clock.now += LIMIT + 1
    pid = os.fork()
    if pid == 0:
        loop.beat()
        os._exit(0)
    os.waitpid(pid, 0)
    assert is_fed(watchdog, manager)


@pytest.mark.parametrize(
    ("env", "who"),
    [
        ({}, "restart podwired"),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, "restart podwired"),
        ({"PODWIRE_HEALTH": "/dev/shm/podwire-health"}, "the kubelet restarts podwired"),
    ],
)
def test_where_systemd_expects_nothing_nothing_is_sent(
    manager: socket.socket,
    env: dict[str, str],
    who: str,
    capfd: pytest.CaptureFixture[str],
    clock: Clock,
) -> None:
    watchdog = watched(env)
    loop = watchdog.add("routing")
    loop.beat()
    assert not is_fed(watchdog, manager)
    clock.now += LIMIT + 1
    assert not is_fed(watchdog, manager)
    assert f"no progress: routing; {who}\n" in capfd.readouterr().err
