"""Packets from pod to pod across nodes."""

import signal
import subprocess
from pathlib import Path

from tests.pytest_netns import Namespace


def address(pod: Namespace, version: int = 4) -> str:
    """The pod's own address."""
    found = (a.partition("/")[0] for a in pod.addresses("eth0"))
    return next(a for a in found if (":" in a) == (version == 6))


def reach(one: Namespace, two: Namespace) -> bool:
    """Whether pods reach each other, with the largest packets that they may send."""
    link = one.link("eth0")
    assert link is not None
    size = int(link["mtu"])
    return all(one.ping(address(two, v), size=size, fragment=False) for v in (4, 6))


class Ping:
    """Echo requests, a hundred a second, from a network namespace until it is asked."""

    def __init__(self, netns: Path | str, target: str) -> None:
        ping = ["ping", "-n", "-q", "-i", "0.01", target]
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns}", "--", *ping], stdout=subprocess.PIPE, text=True
        )

    def lost(self) -> int:
        """How many had no answer."""
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=60)
        sent, received = (int(word.split()[0]) for word in text.split("\n")[3].split(",")[:2])
        assert sent > 50, text
        return sent - received


class Stream(Ping):
    """The same from one pod to another."""

    def __init__(self, one: Namespace, two: Namespace, version: int = 4) -> None:
        super().__init__(one.path, address(two, version))
