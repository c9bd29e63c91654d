"""podwired on a node: started, watched, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.world import Host

START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
_NOTIFY = Path("/run/bench-notify.sock")
_TICKS = os.sysconf("SC_CLK_TCK")


class Daemon:
    """A running podwired."""

    def __init__(self, host: Host, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        """Start it and wait until it says that it serves (sd_notify(3), READY=1)."""
        self._log = host.work_dir / "podwired.log"
        whole = {**env, "NOTIFY_SOCKET": str(_NOTIFY)}
        self._process = host.call(lambda: self._start(argv, whole))

    def _start(self, argv: Sequence[str | Path], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self._log.open("ab") as log:
            _NOTIFY.unlink(missing_ok=True)  # of an earlier daemon on this node
            ready.bind(str(_NOTIFY))
            # A session of its own: the terminal's Ctrl-C is ours, and wait4 counts only calls.
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=dict(env), start_new_session=True,
            )  # fmt: skip
            try:
                self._wait_ready(ready, process)
            except BaseException:
                process.kill()
                process.wait()
                raise
        return process

    def _wait_ready(self, ready: socket.socket, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        ready.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in ready.recv(4096).splitlines():
                    return
            except TimeoutError:
                if process.poll() is not None:
                    break
        raise RuntimeError(f"podwired does not serve: {self.log()}")

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-2000:].strip()

    @property
    def pids(self) -> list[int]:
        """The process IDs of the daemon and of all that it has forked."""
        return family(self.pid)

    def cpu(self) -> float:
        """Seconds of CPU time of all its threads and processes, ended ones too."""
        return sum(map(_cpu, self.pids))

    def pss(self) -> float:
        """Memory of all its processes in MB (10^6 bytes); shared pages count once (PSS)."""
        return pss(self.pid)

    def stop(self) -> None:
        """End it as a service manager does; RuntimeError if it does not end well."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"podwired did not end on SIGTERM: {self.log()}") from None
        if code:
            raise RuntimeError(f"podwired ended with {code}: {self.log()}")

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        self._process.kill()
        self._process.wait()


def pss(pid: int) -> float:
    """Memory of a process and its descendants in MB (10^6 bytes); shared pages count once."""
    return sum(map(_pss, family(pid)))


def family(pid: int) -> list[int]:
    """The process IDs of a process and of its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += family(child)
    return found


def _cpu(pid: int) -> float:
    # clock_getcpuclockid(3): the inverted process ID and CPUCLOCK_SCHED.
    own = time.clock_gettime((~pid << 3) | 2)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / _TICKS


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(kib) * 1024 / 1e6
