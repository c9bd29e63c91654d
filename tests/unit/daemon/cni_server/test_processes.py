"""Forked processes: they end with their parent, and no signal of the daemon ends them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SECONDS = 60.0
HEAD = """
import os, signal, sys, time
from daemon.cni_server.processes import Processes
from daemon.log import Log
processes = Processes(Log())
def fork(count, work):
    processes.fork(count, work)
    processes.begin(b"order")
"""


def start(script: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", HEAD + script]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_daemon_leaves_no_process() -> None:
    sleeper = "fork(2, lambda n, _: (os.write(1, b'%d\\n' % os.getpid()), time.sleep(60))[0])\n"
    process = start(sleeper + "time.sleep(60)")
    assert process.stdout is not None
    helpers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(map(is_running, helpers))
    process.kill()
    process.communicate()
    until = time.monotonic() + SECONDS
    while any(map(is_running, helpers)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_they_end_by_themselves() -> None:
    script = "fork(2, lambda n, _: time.sleep(0.1) or 0)\nsys.exit(not processes.wait(60))"
    assert finish(start(script)) == (0, "", "")


def test_one_that_does_not_end_is_killed() -> None:
    code, _out, _err = finish(
        start("fork(1, lambda n, _: time.sleep(60) or 0)\nsys.exit(processes.wait(0.1))")
    )
    assert code == 0, "wait() is False"


def test_a_failing_one_says_why_and_fails_alone() -> None:
    code, out, err = finish(
        start("fork(1, lambda n, _: 1 // 0)\nprint('first')\nsys.exit(not processes.wait(60))")
    )
    assert (code, out) == (1, "first\n")
    assert "ZeroDivisionError" in err


def test_a_death_is_logged_once() -> None:
    script = """
fork(2, lambda n, _: time.sleep(60 if n == 1 else 3) or 0)
os.kill(min(map(int, open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split())), 9)
found = []
while not found:
    found = processes.find_dead()
for _ in range(20):
    assert processes.find_dead() == []
assert (found, processes.died) == ([1], 1)
sys.exit(0 if processes.wait(60) else 1)
"""
    code, _out, err = finish(start(script))
    assert code == 0, "a death that was reported is no fault of the end"
    assert err.count("for CNI calls ended (it was ended by signal 9 (SIGKILL))") == 1


def test_no_signal_of_the_daemon_ends_one() -> None:
    """Not even one that comes at its birth; the first process ends them by the socket."""
    script = """
from daemon.signals import NUMBERS, catch
catch()
for _ in range(30):
    fork(1, lambda n, _: time.sleep(0.03) or 0)
    [pid] = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
    for number in NUMBERS:
        os.kill(int(pid), number)
    if not processes.wait(15):
        sys.exit("a signal has ended a process")
"""
    assert finish(start(script)) == (0, "", "")


def test_they_are_given_an_order() -> None:
    script = """
processes.fork(2, lambda n, order: os.write(1, b'%d %s\\n' % (n, order)) * 0)
time.sleep(0.1)
print("ordered", flush=True)
processes.begin(b"to serve")
sys.exit(not processes.wait(60))
"""
    code, out, err = finish(start(script))
    assert (code, err) == (0, "")
    first, *others = out.splitlines()
    assert (first, sorted(others)) == ("ordered", ["1 to serve", "2 to serve"])


def test_without_an_order_they_end() -> None:
    script = "processes.fork(2, lambda n, order: 1)\nsys.exit(not processes.wait(60))"
    assert finish(start(script)) == (0, "", "")


def test_an_order_to_one_that_died_is_no_fault() -> None:
    script = """
processes.fork(1, lambda n, order: 0)
[pid] = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
os.kill(int(pid), signal.SIGKILL)
os.waitid(os.P_PID, int(pid), os.WEXITED | os.WNOWAIT)
processes.begin(b"order")
sys.exit(processes.find_dead() != [1])
"""
    code, _out, err = finish(start(script))
    assert code == 0
    assert "for CNI calls ended" in err
