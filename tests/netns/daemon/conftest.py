"""A node with podwire's daemon, and calls through the installed shim."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pytest_netns.node import Node

SOCKET = Path("/run/podwire/podwire.sock")


class Daemon:
    """`podwired serve` on a node; its files are in the node's own /run and /var/lib."""

    def __init__(self, node: Node, podwired: Path) -> None:
        self.node = node
        # exec: the process that we signal is the daemon itself.
        self.process = subprocess.Popen(
            [*node.enter, podwired, "serve"], stderr=subprocess.PIPE, text=True, env={}
        )
        for _ in range(200):
            if node.run(["test", "-S", SOCKET], check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError("the daemon did not come up")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signal the daemon and wait for its end: exit status and log."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _out, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


StartDaemon = Callable[[Node], Daemon]


@pytest.fixture
def start_daemon(podwire_bin: Path) -> Iterator[StartDaemon]:
    started: list[Daemon] = []

    def start(node: Node) -> Daemon:
        started.append(Daemon(node, (podwire_bin / "podwire").resolve().with_name("podwired")))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop(signal.SIGKILL)


@pytest.fixture
def daemon(node: Node, start_daemon: StartDaemon) -> Daemon:
    """The daemon of the test's node."""
    return start_daemon(node)
