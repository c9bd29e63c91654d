"""A node with podwire's daemon, and calls through the installed shim."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_netns.node import CniResult, Node

SOCKET = Path("/run/podwire/podwire.sock")
SECONDS = 60.0
"""How long anything may take before it counts as hung."""


class Daemon:
    """`podwired serve`, or other words, on a node; its files are in the node's own folders."""

    def __init__(
        self,
        node: Node,
        podwired: Path,
        files: Path,
        path: Path = SOCKET,
        words: Sequence[str] = ("serve",),
    ) -> None:
        """Start it and wait until it serves."""
        self.node, self.path = node, path
        self._log = files / "log"
        env = {"NOTIFY_SOCKET": str(files / "notify"), "PODWIRE_SOCKET": str(path)}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self._log.open("w") as log:
            ready.bind(env["NOTIFY_SOCKET"])
            # exec: the process that we signal is the daemon itself.
            self.process = subprocess.Popen(
                [*node.enter, str(podwired), *words], stderr=log, env=env
            )
            _wait_ready(self, ready)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signal the daemon and wait for its end: exit status and log."""
        helpers: list[int] = []
        if self.process.poll() is None:
            helpers = self.processes[1:]
            self.process.send_signal(number)
        status = self.process.wait(SECONDS)
        # The kernel kills them with the first one, and does not wait for their end.
        until = time.monotonic() + SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in helpers):
            assert time.monotonic() < until, "a process outlives the daemon"
            time.sleep(0.002)
        return status, self.log

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def processes(self) -> list[int]:
        """Its process IDs, the first one first."""
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in self.processes)

    @property
    def descriptors(self) -> list[str]:
        """What its open descriptors are."""
        folders = [Path(f"/proc/{pid}/fd") for pid in self.processes]
        return sorted(name for f in folders for entry in f.iterdir() if (name := _target(entry)))

    def cni(self, verb: str, program: Path, conf: Mapping[str, Any], **keys: Any) -> CniResult:
        """A call of the node's, directed to this daemon."""
        env = {"PODWIRE_SOCKET": str(self.path), **keys.pop("env", {})}
        return self.node.cni(verb, program, conf, env=env, **keys)


def _target(entry: Path) -> str:
    with suppress(FileNotFoundError):  # closed meanwhile
        return os.readlink(entry)
    return ""


def _wait_ready(daemon: Daemon, ready: socket.socket) -> None:
    ready.settimeout(SECONDS / 600)
    for _ in range(600):
        try:
            assert ready.recv(100) == b"READY=1"
        except TimeoutError:
            assert daemon.process.poll() is None, f"the daemon did not come up: {daemon.log}"
            continue
        return
    raise AssertionError("the daemon did not come up")


StartDaemon = Callable[..., Daemon]


@pytest.fixture(scope="session")
def podwired(podwire_bin: Path) -> Path:
    """The daemon's executable."""
    return (podwire_bin / "podwire").resolve().with_name("podwired")


@pytest.fixture
def start_daemon(podwired: Path, tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts daemons: `start_daemon(node)`; more arguments as `Daemon` has them."""
    started: list[Daemon] = []

    def start(node: Node, program: Path = podwired, **keys: Any) -> Daemon:
        files = tmp_path / f"daemon-{len(started)}"
        files.mkdir()
        started.append(Daemon(node, program, files, **keys))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop(signal.SIGKILL)


@pytest.fixture
def daemon(node: Node, start_daemon: StartDaemon) -> Daemon:
    """The daemon of the test's node."""
    return start_daemon(node)


@pytest.fixture
def near_daemon(node: Node, start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """A daemon whose socket the test itself can reach."""
    return start_daemon(node, path=tmp_path / "s")
