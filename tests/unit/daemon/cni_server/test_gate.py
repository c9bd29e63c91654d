"""The gate: slots are never exceeded while they are free in time, given away, and never lost."""

from __future__ import annotations

import threading
import time

import pytest

from cni_plugin.host import Host
from daemon.cni_server import gate
from daemon.cni_server.gate import Gate


class Room:
    """Counts how many are in it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.present = self.most = 0

    def __enter__(self) -> None:
        with self._mutex:
            self.present += 1
            self.most = max(self.most, self.present)

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self.present -= 1


def run(count: int, work: object) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_more_calls_than_slots_compute() -> None:
    door, room = Gate(2), Room()

    def call() -> None:
        with door.inside(), room:
            time.sleep(0.01)

    run(12, call)
    assert room.most == 2


def test_who_waits_outside_gives_its_slot_away() -> None:
    door, meeting = Gate(1), threading.Barrier(4, timeout=60)

    def call() -> None:
        with door.inside(), door.outside():
            meeting.wait()

    run(4, call)
    assert not meeting.broken


def test_slots_come_back_after_failures() -> None:
    door, room = Gate(1), Room()
    for _ in range(5):
        with pytest.raises(OSError, match="delegate"), door.inside(), door.outside():
            raise OSError("delegate")

    def call() -> None:
        with door.inside(), room:
            time.sleep(0.01)

    run(4, call)
    assert room.most == 1


def test_a_stuck_call_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.05)
    door, served = Gate(1), threading.Event()

    def call() -> None:
        with door.inside():
            served.set()

    with door.inside():
        run(1, call)
        assert served.is_set()


def test_outside_without_a_slot_is_nothing() -> None:
    door, room = Gate(1), Room()
    with door.outside():
        pass

    def call() -> None:
        with door.inside(), room:
            time.sleep(0.01)

    run(4, call)
    assert room.most == 1


def test_a_call_that_waits_for_the_kernel_lets_others_in() -> None:
    door, order, paused = Gate(1), list[str](), threading.Event()
    host = Host(outside=door.outside)

    def waiting() -> None:
        with door.inside():
            paused.set()
            host.pause(0.2)
            order.append("waiting")

    def other() -> None:
        paused.wait()
        with door.inside():
            order.append("other")

    threads = [threading.Thread(target=work) for work in (waiting, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["other", "waiting"]
