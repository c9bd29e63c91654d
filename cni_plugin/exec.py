"""Another program, executed for one call: its time, its output and its offspring are bounded.

It leads a session and a process group of its own, so that all that it started ends with it. What
detaches itself from that group is neither searched for nor waited for.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

STDOUT_MAX = 1 << 20
"""Bytes: the result of an attachment with hundreds of addresses is not half as long."""
STDERR_MAX = 1 << 16
"""Bytes; what a program writes beyond them is dropped."""
_PIPE = 1 << 16

Watch = Callable[[int], AbstractContextManager[object]]


class TooLate(Exception):
    """It had not ended in time, and was killed."""


class TooMuch(Exception):
    """It wrote more than STDOUT_MAX, and was killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: status is negative where a signal did it (`subprocess.Popen.returncode`)."""

    status: int
    stdout: bytes


def execute(
    program: Path,
    env: Mapping[str, str],
    stdin: bytes,
    seconds: float,
    watch: Watch,
    stderr: bytearray,
) -> Ended:
    """Execute it without arguments. Raises TooLate, TooMuch, OSError where it cannot be executed.

    watch: what we are in while the process group of that number exists. stderr: takes its stderr,
    whatever else happens.
    """
    import subprocess  # few calls are delegated

    until, pipe = time.monotonic() + seconds, subprocess.PIPE
    process = subprocess.Popen(
        [program], stdin=pipe, stdout=pipe, stderr=pipe, env=env, bufsize=0, start_new_session=True
    )
    # Until it is reaped, at the end, its number is no other's.
    with process, watch(process.pid):
        try:
            with closing(_Pipes(process, stdin, stderr)) as pipes:
                pipes.serve(until)
        finally:
            kill_group(process.pid)
    return Ended(process.returncode, bytes(pipes.out))


def describe_end(status: int) -> str:
    """How a process ended, as text. status: negative where a signal did it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"it was ended by signal {-status}{name}"


def kill_group(group: int) -> None:
    """End a process group, whether or not it is there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class _Pipes:
    """What goes to a process and comes from it, until its end."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes, stderr: bytearray) -> None:
        self.out, self._err = bytearray(), stderr
        self._left = memoryview(stdin)
        self._end = os.pidfd_open(process.pid)
        pipes = (process.stdin, process.stdout, process.stderr)
        self._in, self._stdout, self._stderr = pipes
        self._poll = select.poll()
        self._poll.register(self._end, select.POLLIN)
        for file in pipes:
            assert file is not None  # noqa: S101
            os.set_blocking(file.fileno(), False)
            self._poll.register(file, select.POLLOUT if file is process.stdin else select.POLLIN)

    def close(self) -> None:
        """Close what is not the process's own."""
        os.close(self._end)

    def serve(self, until: float) -> None:
        """Until the process has ended. Raises TooLate, TooMuch."""
        ended = False
        while not ended:
            left = until - time.monotonic()
            if left <= 0:
                raise TooLate
            ready = {fd for fd, _events in self._poll.poll(math.ceil(left * 1000))}
            ended = self._end in ready
            self._serve(ready)
        # What it left in its pipes; who has them still is not waited for.
        while self._serve({fd for fd, _events in self._poll.poll(0)} - {self._end}):
            if time.monotonic() >= until:
                raise TooLate

    def _serve(self, ready: set[int]) -> bool:
        """Read and write where that is possible; whether anything was."""
        for file, act in (
            (self._in, self._write), (self._stdout, self._read_out), (self._stderr, self._read_err),
        ):  # fmt: skip
            if file is not None and not file.closed and (fd := file.fileno()) in ready:
                with suppress(BlockingIOError):
                    if not act(fd):
                        self._poll.unregister(fd)
                        file.close()
        return bool(ready)

    def _write(self, fd: int) -> bool:
        try:
            self._left = self._left[os.write(fd, self._left[:_PIPE]) :]
        except BrokenPipeError:  # it does not read its stdin
            return False
        return bool(self._left)

    def _read_out(self, fd: int) -> bool:
        data = os.read(fd, _PIPE)
        self.out += data
        if len(self.out) > STDOUT_MAX:
            raise TooMuch
        return bool(data)

    def _read_err(self, fd: int) -> bool:
        data = os.read(fd, _PIPE)
        self._err += data[: STDERR_MAX - len(self._err)]
        return bool(data)
