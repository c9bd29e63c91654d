"""Shifts: few threads at a time, the last at rest first, nobody lost, and none kept in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

import pytest

from daemon.cni_server import shifts
from daemon.cni_server.shifts import Shifts

SECONDS = 20.0


class Office:
    """Calls in a queue, and threads that take them by shifts."""

    def __init__(self, rooms: int = 2, most: int = 8) -> None:
        self.shifts = Shifts(rooms, most)
        self.calls: Queue[Callable[[], None] | None] = Queue()
        self.threads: list[threading.Thread] = []
        self.takers: list[str] = []

    def start(self) -> None:
        """One more thread."""
        name = f"thread-{len(self.threads)}"
        self.threads.append(threading.Thread(target=self._work, name=name, daemon=True))
        self.threads[-1].start()

    def _work(self) -> None:
        while self.shifts.begin():
            call = self.calls.get()
            if call is None:
                self.shifts.missed()
                continue
            self.shifts.accepted()
            self.takers.append(threading.current_thread().name)
            call()

    def alive(self) -> int:
        """How many threads there are."""
        return sum(thread.is_alive() for thread in self.threads)


@contextmanager
def office(rooms: int = 2, most: int = 8) -> Iterator[Office]:
    """An office that is open, and in order when it closes."""
    made = Office(rooms, most)
    made.shifts.open(made.start)
    yield made
    made.shifts.stop()
    for _ in range(most + 1):
        made.calls.put(None)
    for thread in made.threads:
        thread.join(SECONDS)
    assert made.alive() == 0


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_no_more_calls_than_rooms_are_taken() -> None:
    hold = threading.Event()
    with office(rooms=2) as place:
        for _ in range(5):
            place.calls.put(lambda: (hold.wait(SECONDS), None)[1])
        wait_until(lambda: len(place.takers) == 2)
        time.sleep(0.05)
        assert len(place.takers) == 2
        assert place.calls.qsize() == 3
        hold.set()
        wait_until(lambda: len(place.takers) == 5)
        assert len(place.threads) == 2


def test_who_only_waits_gives_its_room_to_another() -> None:
    hold = threading.Event()
    with office(rooms=1, most=5) as place:

        def wait() -> None:
            place.shifts.leave()
            hold.wait(SECONDS)

        for _ in range(5):
            place.calls.put(wait)
        wait_until(lambda: len(place.takers) == 5)
        assert len(set(place.takers)) == 5
        hold.set()


def test_leaving_twice_gives_one_room() -> None:
    hold = threading.Event()
    with office(rooms=1) as place:

        def leave() -> None:
            place.shifts.leave()
            place.shifts.leave()
            hold.wait(SECONDS)

        place.calls.put(leave)
        for _ in range(3):
            place.calls.put(lambda: (hold.wait(SECONDS), None)[1])
        wait_until(lambda: len(place.takers) == 2)
        time.sleep(0.05)
        assert len(place.takers) == 2
        hold.set()
        wait_until(lambda: len(place.takers) == 4)


def test_never_more_threads_than_allowed() -> None:
    hold = threading.Event()
    with office(rooms=1, most=3) as place:

        def wait() -> None:
            place.shifts.leave()
            hold.wait(SECONDS)

        for _ in range(6):
            place.calls.put(wait)
        wait_until(lambda: len(place.takers) == 3)
        time.sleep(0.05)
        assert len(place.threads) == 3
        hold.set()
        wait_until(lambda: len(place.takers) == 6)


def test_stuck_calls_do_not_keep_out_others() -> None:
    hold = threading.Event()
    with office(rooms=2) as place:
        for _ in range(2):
            place.calls.put(lambda: (hold.wait(SECONDS), None)[1])
        wait_until(lambda: len(place.takers) == 2)
        served = threading.Event()
        place.calls.put(served.set)
        place.shifts.relieve()
        assert not served.wait(0.05), "one look finds what came since the last"
        place.shifts.relieve()
        assert served.wait(SECONDS)
        hold.set()


def test_rooms_that_were_extra_go() -> None:
    with office(rooms=1) as place:
        for _ in range(3):
            hold, taken = threading.Event(), len(place.takers)
            place.calls.put(lambda hold=hold: (hold.wait(SECONDS), None)[1])  # type: ignore[misc]
            wait_until(lambda taken=taken: len(place.takers) > taken)  # type: ignore[misc]
            place.shifts.relieve()
            place.shifts.relieve()
            hold.set()
        for _ in range(20):
            place.calls.put(lambda: None)
        wait_until(lambda: len(place.takers) == 23)
        hold, first = threading.Event(), len(place.takers)
        for _ in range(3):
            place.calls.put(lambda: (hold.wait(SECONDS), None)[1])
        time.sleep(0.1)
        assert len(place.takers) - first == 1, "the office has one room again"
        hold.set()


def test_threads_that_nobody_needs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shifts, "REST_SECONDS", 0.05)
    hold = threading.Event()
    with office(rooms=2, most=6) as place:

        def wait() -> None:
            place.shifts.leave()
            hold.wait(SECONDS)

        for _ in range(6):
            place.calls.put(wait)
        wait_until(lambda: len(place.takers) == 6)
        hold.set()
        wait_until(lambda: place.alive() == 2)
        place.calls.put(lambda: None)
        wait_until(lambda: len(place.takers) == 7)


def test_one_caller_is_served_by_one_thread() -> None:
    """Its stack, its sockets and its memory are warm."""
    with office(rooms=1) as place:
        for number in range(20):
            place.calls.put(lambda: None)
            wait_until(lambda number=number: len(place.takers) > number)  # type: ignore[misc]
        assert len(set(place.takers)) == 1
