"""CNI calls counted in memory that several processes share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.errors import INTERNAL, CniError
from cni_plugin.handle import Reply, refuse
from daemon.cni_server.call_counters import BOUNDS, CODES, OTHER, VERBS, CallCounters, code_of
from tests import ROOT

CALLS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from((*VERBS, "", "add", "ADDX")),
        st.sampled_from((*CODES, -1, 77, 1 << 40)),
        st.floats(0, 100),
    )
)


@given(CALLS)
def test_what_is_read_is_what_was_counted(calls: list[tuple[int, str, int, float]]) -> None:
    counters = CallCounters(3)
    for row, verb, code, seconds in calls:
        counters.rows[row].begin(verb)
        counters.rows[row].end(verb, seconds, code)
    known = [(v if v in VERBS else OTHER, c, s) for _row, v, c, s in calls]
    counts = counters.read()
    assert list(counts) == list(VERBS)
    for verb, found in counts.items():
        mine = [(c, s) for v, c, s in known if v == verb]
        assert found.in_flight == 0
        codes = Counter(str(c) if c in CODES else OTHER for c, _s in mine)
        assert {c: n for c, n in found.codes.items() if n} == codes
        for histogram, some in (
            (found.done, [s for c, s in mine if c == 0]),
            (found.failed, [s for c, s in mine if c]),
        ):
            assert histogram.seconds == pytest.approx(sum(some), abs=1e-6)
            for bound, upto in zip(BOUNDS, range(1, len(BOUNDS) + 1), strict=True):
                assert sum(histogram.buckets[:upto]) == sum(s <= bound for s in some)
            assert sum(histogram.buckets) == len(some)


def test_calls_are_in_flight_until_they_end_or_come_to_nothing() -> None:
    counters = CallCounters(2)
    for row, verb in ((0, "ADD"), (1, "ADD"), (1, "DEL"), (0, "FOO")):
        counters.rows[row].begin(verb)
    found = {verb: counts.in_flight for verb, counts in counters.read().items() if counts.in_flight}
    assert found == {"ADD": 2, "DEL": 1, "other": 1}
    counters.rows[0].end("ADD", 0.1, 0)
    counters.rows[1].end("ADD", 0.1, None)
    assert counters.read()["ADD"].in_flight == 0
    assert counters.read()["ADD"].codes["0"] == 1


def test_processes_and_threads_lose_no_count() -> None:
    processes, threads, calls = 3, 4, 500
    counters = CallCounters(processes)

    def count(row: int) -> None:
        for _ in range(calls):
            counters.rows[row].begin("ADD")
            counters.rows[row].end("ADD", 0.004, 11)

    def work(row: int) -> None:
        workers = [threading.Thread(target=count, args=(row,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    children = []
    for row in range(1, processes):
        pid = os.fork()
        if pid == 0:
            work(row)
            os._exit(0)
        children.append(pid)
    work(0)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(children)
    found = counters.read()["ADD"]
    whole = processes * threads * calls
    assert (found.in_flight, found.codes["11"]) == (0, whole)
    assert sum(found.failed.buckets) == found.failed.buckets[2] == whole
    assert found.failed.seconds == pytest.approx(whole * 0.004)


def test_calls_of_a_process_that_was_killed_are_in_flight_no_more() -> None:
    counters = CallCounters(2)
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        counters.rows[1].begin("DEL")
        counters.rows[1].end("DEL", 0.02, 0)
        counters.rows[1].begin("DEL")
        os.write(told, b"x")
        signal.pause()
        os._exit(1)
    counters.rows[0].begin("DEL")
    assert os.read(ready, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for end in (ready, told):
        os.close(end)
    assert counters.read()["DEL"].in_flight == 2
    assert (counters.dead, counters.fault) == (0, "")
    counters.drop(1)
    assert (counters.dead, counters.fault[:41]) == (1, "1 of 2 processes for CNI calls died, podw")
    assert counters.read()["DEL"].in_flight == 1
    assert counters.read()["DEL"].codes["0"] == 1


@pytest.mark.parametrize(
    ("stdout", "code"),
    [
        (refuse(CniError(11, "busy", "a lot")).stdout, 11),
        (b'{"code": 12345}', 12345),
        (b'{"code": 0}', INTERNAL),
        (b'{"code": "11"}', INTERNAL),
        (b"[1]", INTERNAL),
        (b"", INTERNAL),
        (b"\xff", INTERNAL),
    ],
)
def test_the_code_of_a_failure_is_in_its_reply(stdout: bytes, code: int) -> None:
    assert code_of(Reply(1, stdout)) == code
    assert code_of(Reply(0, stdout)) == 0


def test_counting_loads_no_metrics_library() -> None:
    code = "import daemon.cni_server.call_counters, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert not {"prometheus_client", "http", "pydantic", "pyroute2", "asyncio"} & set(
        loaded.stdout.decode().split()
    )
