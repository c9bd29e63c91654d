"""Starting programs as cheaply as Python can, and what each of them cost.

os.posix_spawn shares the parent's memory until exec (CLONE_VM | CLONE_VFORK), so the harness's
own size costs nothing.  A child is in the namespaces of the thread that starts it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PIPE_BYTES = 1 << 16
"""What a pipe holds (pipe(7)); a command's input and its answer both fit in one."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program, its whole environment, its input."""

    program: Path
    env: Mapping[str, str]
    stdin: bytes = b""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended. wall, cpu in seconds; cpu includes all that the program waited for."""

    code: int
    stdout: bytes
    wall: float
    cpu: float


Job = Generator[Command, Exit, None]
"""Yields programs, one after the other, and gets how each ended."""


@dataclass(frozen=True, slots=True)
class _Running:
    pid: int
    output: int
    began: float


def run(command: Command, stderr: int) -> Exit:
    """Run a program to its end. stderr: the descriptor that it gets for that."""
    running = _start(command, stderr)
    _, status, usage = os.wait4(running.pid, 0)
    return _finish(running, status, usage)


def run_many(commands: Sequence[Command], stderr: int, at_once: int) -> tuple[float, list[Exit]]:
    """Run programs, so many at once; the wall time in seconds, and how each ended, in order."""
    wall, ends = run_jobs([_only(command) for command in commands], stderr, at_once)
    return wall, [ended for (ended,) in ends]


def _only(command: Command) -> Job:
    yield command


def run_jobs(jobs: Sequence[Job], stderr: int, at_once: int) -> tuple[float, list[list[Exit]]]:
    """Run jobs, so many at once; the wall time in seconds, and how the programs of each ended."""
    began = time.perf_counter()
    running: dict[int, tuple[int, _Running]] = {}
    ends: list[list[Exit]] = [[] for _ in jobs]
    waiting = list(enumerate(next(job) for job in jobs))[::-1]
    while waiting or running:
        while waiting and len(running) < at_once:
            index, command = waiting.pop()
            started = _start(command, stderr)
            running[started.pid] = index, started
        # Any child of this process group: daemons are in sessions of their own.
        pid, status, usage = os.wait4(0, 0)
        if pid in running:
            index, started = running.pop(pid)
            ends[index].append(_finish(started, status, usage))
            with suppress(StopIteration):
                waiting.append((index, jobs[index].send(ends[index][-1])))
    return time.perf_counter() - began, ends


def _start(command: Command, stderr: int) -> _Running:
    began = time.perf_counter()
    stdin, feed = os.pipe()
    output, stdout = os.pipe()
    try:
        assert len(command.stdin) < PIPE_BYTES, "the input would not fit into the pipe"
        os.write(feed, command.stdin)
        pid = os.posix_spawn(
            command.program,
            [command.program.name],
            command.env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsigdef=[signal.SIGPIPE],  # Python ignores it, and children would too
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        for fd in (stdin, feed, stdout):
            os.close(fd)
    return _Running(pid, output, began)


def _finish(running: _Running, status: int, usage: os.struct_rusage) -> Exit:  # type: ignore[name-defined]
    wall = time.perf_counter() - running.began
    try:
        stdout = os.read(running.output, PIPE_BYTES)
    finally:
        os.close(running.output)
    cpu = usage.ru_utime + usage.ru_stime
    return Exit(os.waitstatus_to_exitcode(status), stdout, wall, cpu)
