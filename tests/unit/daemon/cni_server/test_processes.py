"""Forked processes: they end with their parent, in order or not; what they share is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from daemon.cni_server.attachment_locks import KeyedLocks, KeyLocksFile
from daemon.cni_server.board import SIZE, Board

SECONDS = 20.0
HEAD = """
import os, signal, sys, time
from daemon.cni_server.board import Board
from daemon.cni_server.processes import Crew
from daemon.cni_server.attachment_locks import KeyedLocks, KeyLocksFile
from daemon.log import Log
crew = Crew(Log())
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
    sleeper = "crew.fork(2, lambda n: (os.write(1, b'%d\\n' % os.getpid()), time.sleep(60))[0])\n"
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


def test_they_end_when_told() -> None:
    script = "crew.fork(2, lambda n: signal.sigwait({15}) and 0)\n"
    mask = "signal.pthread_sigmask(signal.SIG_BLOCK, {15})\n"
    code, _out, err = finish(start(mask + script + "crew.signal(15)\nsys.exit(crew.wait(60))"))
    assert (code, err) == (0, "")


def test_who_does_not_end_is_made_to() -> None:
    code, _out, _err = finish(
        start("crew.fork(1, lambda n: time.sleep(60) or 0)\nsys.exit(crew.wait(0.1) + 5)")
    )
    assert code == 6


def test_a_failing_one_says_why_and_fails_alone() -> None:
    code, out, err = finish(
        start("crew.fork(1, lambda n: 1 // 0)\nprint('first')\nsys.exit(crew.wait(60))")
    )
    assert (code, out) == (1, "first\n")
    assert "ZeroDivisionError" in err


def test_a_death_is_told_once() -> None:
    script = """
crew.fork(1, lambda n: time.sleep(60))
crew.signal(9)
for _ in range(20):
    time.sleep(0.02)
    crew.look()
sys.exit(crew.wait(1) + 5)
"""
    code, _out, err = finish(start(script))
    assert code == 5, "what it left undone is told then, and is no fault of the end"
    assert err.count("for CNI calls ended (it was ended by signal 9 (SIGKILL))") == 1


def test_a_key_is_held_by_one_process() -> None:
    file = KeyLocksFile()
    mine = KeyedLocks(file.open())
    key = ("container", "eth0")
    read, write = os.pipe()
    with mine.holding(key):
        pid = os.fork()
        if pid == 0:
            waited: list[None] = []
            theirs = KeyedLocks(file.open(), lambda: waited.append(None))
            with theirs.holding(("another", "eth0")):
                os.write(write, b"other;")
            with theirs.holding(key):
                os.write(write, b"same;" if waited else b"same at once;")
            os._exit(0)
        time.sleep(0.2)
        assert os.read(read, 100) == b"other;"
    assert os.read(read, 100) == b"same;"
    assert os.waitpid(pid, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_a_killed_process_holds_no_key() -> None:
    file = KeyLocksFile()
    key, (read, write) = ("container", "eth0"), os.pipe()
    pid = os.fork()
    if pid == 0:
        with KeyedLocks(file.open()).holding(key):
            os.write(write, b"held")
            time.sleep(60)
        os._exit(1)
    assert os.read(read, 4) == b"held"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    waited: list[None] = []
    with KeyedLocks(file.open(), lambda: waited.append(None)).holding(key):
        assert waited == []
    os.close(read)
    os.close(write)


def test_the_board_shows_whole_texts() -> None:
    """Read while it is written, without a lock: one of the texts, never parts of two."""
    board = Board()
    assert board.read() == ""
    texts = [chr(ord("a") + n) * (n * 600 + 1) for n in range(26)]
    pid = os.fork()
    if pid == 0:
        for _ in range(400):
            for text in texts:
                board.write(text)
        os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        text = board.read()
        assert text in ("", *texts)
        seen.add(text)
    assert board.read() == texts[-1]
    assert len(seen) > 1


def test_a_long_text_is_cut_at_a_character() -> None:
    board = Board()
    board.write("é" * SIZE)
    assert set(board.read()) == {"é"}
    assert len(board.read()) == (SIZE - 8) // 2


def test_no_signal_is_lost_at_birth() -> None:
    """Python forgets what came before its own part of a fork was over (PyOS_AfterFork_Child)."""
    script = """
from daemon.signals import CAUGHT, catch
from queue import Empty
def work(number):
    try:
        return 0 if CAUGHT.get(timeout=5) == signal.SIGTERM else 1
    except Empty:
        return 2
catch()
for _ in range(30):
    crew.fork(1, work)
    crew.signal(signal.SIGTERM)
    status = crew.wait(15)
    if status:
        sys.exit(f"a process never heard the signal: {status}")
"""
    assert finish(start(script)) == (0, "", "")
