"""Packets from pod to pod across nodes."""

import re
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryFile

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
        ping = ["ping", "-n", "-i", "0.01", target]
        self._answers = TemporaryFile("w+")  # noqa: SIM115 - until `lost` has read it
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns}", "--", *ping], stdout=self._answers
        )

    def lost(self) -> int:
        """How many had no answer; the last one's may have been on its way when it ended."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        with self._answers as file:
            file.seek(0)
            text = file.read()
        found = re.search(r"(\d+) packets transmitted", text)
        assert found, text
        sent = int(found[1])
        assert sent > 50, text
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", text)}
        return len(set(range(1, sent)) - answered)


class Stream(Ping):
    """The same from one pod to another."""

    def __init__(self, one: Namespace, two: Namespace, version: int = 4) -> None:
        super().__init__(one.path, address(two, version))
