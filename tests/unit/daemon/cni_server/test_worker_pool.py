"""The pool: one thread leads, a few calls are served, none is lost, no thread is kept in vain."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Queue

import pytest

from cni_plugin.errors import TRY_AGAIN, CniError
from cni_plugin.host import Host
from daemon.cni_server import worker_pool
from daemon.cni_server.worker_pool import (
    ALL_WAITING_MAX,
    BUSY_MAX,
    THREADS,
    WAITING_MAX,
    Delegations,
    WorkerPool,
)
from daemon.log import Log

SECONDS = 60.0
Call = Callable[[], object]


class Served:
    """Calls in a queue, served by a pool; `takers` are the threads that took one."""

    def __init__(self, most: int) -> None:
        self.pool = WorkerPool(most)
        self.calls: Queue[Call | None] = Queue()
        self.takers: list[int] = []
        self.pool.start(self._work, lambda: not self.calls.empty())

    def _work(self) -> bool:
        call = self.calls.get()
        if call is None:
            return False
        self.pool.taken()
        self.pool.share()
        self.takers.append(threading.get_ident())  # last: what a test does then shares no more
        call()
        return True

    @property
    def threads(self) -> int:
        """How many workers there are."""
        return sum(thread.name == "worker" for thread in threading.enumerate())


@contextmanager
def serving(most: int = 8) -> Iterator[Served]:
    """A pool that is served from, and ends well."""
    served = Served(most)
    yield served
    served.calls.put(None)
    assert served.pool.join(time.monotonic() + SECONDS)
    assert served.pool.closed.is_set()
    wait_until(lambda: served.threads == 0)


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_calls_that_never_wait_are_one_threads() -> None:
    """Its stack, its sockets and its memory are warm."""
    with serving() as served:
        for number in range(20):
            served.calls.put(lambda: None)
            wait_until(lambda number=number: len(served.takers) > number)  # type: ignore[misc]
        assert len(set(served.takers)) == 1
        assert served.threads == 1


def test_a_call_that_waits_lets_another_thread_lead() -> None:
    hold = threading.Event()
    with serving() as served:

        def wait() -> None:
            with served.pool.waiting():
                hold.wait(SECONDS)

        for _ in range(5):
            served.calls.put(wait)
        wait_until(lambda: len(served.takers) == 5)
        assert len(set(served.takers)) == 5
        hold.set()


def test_passing_on_twice_makes_one_leader() -> None:
    hold, passed = threading.Event(), threading.Event()
    with serving() as served:

        def slow() -> None:
            served.pool.pass_on()
            served.pool.pass_on()
            passed.set()
            hold.wait(SECONDS)

        served.calls.put(slow)
        assert passed.wait(SECONDS)
        assert served.threads == 2
        hold.set()


def test_a_burst_is_served_by_a_few_at_a_time() -> None:
    """What is beyond that is left to other processes, until a call ends or has to wait."""
    hold, waits = threading.Event(), threading.Event()
    with serving(most=20) as served:
        ended: list[None] = []

        def busy() -> None:
            hold.wait(SECONDS)
            ended.append(None)

        def slow() -> None:
            waits.wait(SECONDS)
            served.pool.pass_on()
            hold.wait(SECONDS)
            ended.append(None)

        for call in (slow, *[busy] * 9):
            served.calls.put(call)
        wait_until(lambda: len(served.takers) == BUSY_MAX)
        time.sleep(0.05)
        assert len(served.takers) == served.threads == BUSY_MAX
        waits.set()
        hold.set()
        wait_until(lambda: len(ended) == 10 and served.pool._busy == 0)
        hold.clear()
        for _ in range(8):
            served.calls.put(busy)
        wait_until(lambda: len(served.takers) == 10 + BUSY_MAX)
        time.sleep(0.05)
        assert len(served.takers) == 10 + BUSY_MAX, "a call that has ended is busy no more"
        hold.set()


def test_a_call_that_pauses_lets_others_go_on() -> None:
    order: list[str] = []
    with serving() as served:
        host = Host(outside=served.pool.waiting)

        def pausing() -> None:
            served.calls.put(lambda: order.append("other"))
            host.pause(1.0)
            order.append("pausing")

        served.calls.put(pausing)
        wait_until(lambda: len(order) == 2)
    assert order == ["other", "pausing"]


def test_waiting_in_a_foreign_thread_is_nothing() -> None:
    with serving() as served, served.pool.waiting():
        served.calls.put(lambda: None)
        wait_until(lambda: served.takers)


def test_stuck_calls_keep_out_no_other() -> None:
    hold, after = threading.Event(), threading.Event()
    with serving() as served:
        for number in range(BUSY_MAX):
            served.calls.put(lambda: hold.wait(SECONDS))
            served.pool.relieve()
            served.pool.relieve()
            wait_until(lambda number=number: len(served.takers) > number)  # type: ignore[misc]
        served.calls.put(after.set)
        served.pool.relieve()
        served.pool.relieve()
        assert after.wait(SECONDS)
        wait_until(lambda: served.pool._accepts)
        threads = served.threads
        served.pool.relieve()
        served.pool.relieve()
        assert served.threads == threads, "the leader waits for a call, it is not stuck"
        hold.set()


def test_a_new_call_is_not_taken_for_a_stuck_one() -> None:
    hold, after = threading.Event(), threading.Event()
    with serving() as served:
        served.calls.put(lambda: hold.wait(SECONDS))
        wait_until(lambda: served.takers)
        served.pool.relieve()
        served.calls.put(after.set)
        assert not after.wait(0.05)
        hold.set()
        assert after.wait(SECONDS)


def test_never_more_threads_than_allowed() -> None:
    hold = threading.Event()
    with serving(most=3) as served:

        def wait() -> None:
            with served.pool.waiting():
                hold.wait(SECONDS)

        for _ in range(6):
            served.calls.put(wait)
        wait_until(lambda: len(served.takers) == 3)
        time.sleep(0.05)
        assert (len(served.takers), served.threads) == (3, 3)
        hold.set()
        wait_until(lambda: len(served.takers) == 6)


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "IDLE_SECONDS", 0.05)
    hold = threading.Event()
    with serving() as served:

        def wait() -> None:
            with served.pool.waiting():
                hold.wait(SECONDS)

        for _ in range(6):
            served.calls.put(wait)
        wait_until(lambda: len(served.takers) == 6)
        hold.set()
        wait_until(lambda: served.threads == 1)
        served.calls.put(lambda: None)
        wait_until(lambda: len(served.takers) == 7)


def test_calls_in_flight_are_finished_at_the_end() -> None:
    hold, finished = threading.Event(), threading.Event()
    with serving() as served:

        def slow() -> None:
            with served.pool.waiting():
                hold.wait(SECONDS)
            finished.set()

        served.calls.put(slow)
        wait_until(lambda: served.takers)
        served.calls.put(None)
        assert served.pool.closed.wait(SECONDS)
        assert not served.pool.join(time.monotonic() + 0.05)
        hold.set()
        assert served.pool.join(time.monotonic() + SECONDS)
        assert finished.is_set()


# -- calls that wait for other plugins


def refuse(delegations: Delegations, name: str) -> str:
    with pytest.raises(CniError) as raised, delegations.admitted(name):
        pass
    assert raised.value.code == TRY_AGAIN
    return raised.value.msg


def test_one_plugin_has_not_all_threads(capfd: pytest.CaptureFixture[str]) -> None:
    delegations = Delegations(Log(), 2, 3)
    for _ in range(2):
        with ExitStack() as waiting:
            for _ in range(2):
                waiting.enter_context(delegations.admitted("hung"))
            for _ in range(3):
                assert "2 calls wait for IPAM plugins already, 2 of them for hung; try" in refuse(
                    delegations, "hung"
                )
            with delegations.admitted("other"):
                assert "3 calls wait for IPAM plugins already" in refuse(delegations, "third")
            waiting.enter_context(delegations.admitted("other"))
    err = capfd.readouterr().err
    assert err.count("2 of them for hung: further") == 2, "once each time that it begins"


def test_the_bounds_leave_threads_to_others() -> None:
    assert WAITING_MAX < ALL_WAITING_MAX < THREADS * 2 / 3


def test_what_runs_is_ended() -> None:
    delegations = Delegations(Log())
    runs = [subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(3)]
    with delegations.watched(runs[0].pid):
        pass
    with delegations.watched(runs[1].pid):
        delegations.stop()
        assert runs[1].wait(60) == -9
    assert runs[0].poll() is None
    with delegations.watched(runs[2].pid):
        assert runs[2].wait(60) == -9
    runs[0].kill()
    runs[0].wait()


def test_a_node_without_threads_is_served_once_it_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, list[threading.Thread]()

    def no_thread(thread: threading.Thread) -> None:
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    served = Served(8)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert len(refused) == 1
    done = threading.Event()
    served.calls.put(done.set)
    served.pool.relieve()
    assert done.wait(SECONDS)
    served.calls.put(None)
    assert served.pool.join(time.monotonic() + SECONDS)
