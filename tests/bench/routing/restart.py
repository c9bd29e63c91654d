"""The daemon ends and comes back, while pods on two nodes talk."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from tests.bench.lineup import Lineup
from tests.bench.results import PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.cluster import open_cluster, running
from tests.bench.routing.member import Member, Stuck
from tests.bench.routing.watch import Watch
from tests.bench.sizes import Sizes
from tests.bench.world import Pod

RESTART = "restart"
KINDS = {"SIGTERM and start": False, "kill -9 and start": True}
LOST, WITHDRAWN, TOUCHED = "packets lost", "entries withdrawn", "entries touched"
_ABSENT = 100
_INTERVAL = 0.0005
_AROUND = 0.3
"""Seconds of traffic before and after each restart."""
_BUFFER_BYTES = 64 << 20


class Stream:
    """UDP packets from one pod to another for as long as the context lasts; none is answered.

    The receiver's buffer holds all of them: none is lost for want of a reader.
    """

    def __init__(self, sender: Pod, receiver: Pod, address: str) -> None:
        self._into = receiver.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._into.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE
        self._into.bind((address, 0))
        self._out = sender.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._out.connect(self._into.getsockname())
        self._sent, self._failed, self._done = 0, 0, False
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done = True
        self._thread.join()
        self._out.close()
        self._into.close()

    def _send(self) -> None:
        while not self._done:
            try:
                self._out.send(self._sent.to_bytes(8))
            except OSError:  # no route: as good as lost
                self._failed += 1
            self._sent += 1
            time.sleep(_INTERVAL)

    def lost(self) -> int:
        """End the stream; how many of its packets did not arrive. Raises Stuck if none did."""
        self._done = True
        self._thread.join()
        time.sleep(0.05)  # what is on its way
        arrived = set()
        try:
            while True:
                arrived.add(self._into.recv(64, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        if not arrived:
            raise Stuck(f"none of {self._sent} packets arrived")
        return self._sent - len(arrived)


def restart(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """Each kind of end, on both nodes in turn."""
    with (
        open_cluster(lineup, PODWIRE, 2, _ABSENT) as cluster,
        running(cluster, lineup, places=(0, 1)) as members,
    ):
        pods = lineup.world.pods(RESTART, 2)
        addresses = [
            member.attach(pod, lineup.programs.podwire)
            for member, pod in zip(members, pods, strict=True)
        ]
        for number in range(sizes.restarts):
            for kind, kill in KINDS.items():
                say(f"{RESTART}: {kind}, {number + 1} of {sizes.restarts}")
                for member in members:
                    with _streams(pods, addresses) as streams:
                        _one_restart(member, cluster.entries, kind, kill, streams, results)


@contextmanager
def _streams(pods: Sequence[Pod], addresses: Sequence[str]) -> Iterator[list[Stream]]:
    """Both ways."""
    with ExitStack() as stack:
        (one, two), (first, second) = pods, addresses
        yield [
            stack.enter_context(Stream(one, two, second)),
            stack.enter_context(Stream(two, one, first)),
        ]


def _one_restart(
    member: Member, entries: int, kind: str, kill: bool, streams: Sequence[Stream],
    results: Results,
) -> None:  # fmt: skip
    with Watch(member.host) as watch:
        time.sleep(_AROUND)
        member.stop(kill=kill)
        began = time.monotonic()
        member.start()
        member.wait_in_sync(entries)
        spent = time.monotonic() - began
        time.sleep(_AROUND)
    changes = watch.changes()
    lost = sum(stream.lost() for stream in streams)
    results.add(Figure(RESTART, kind, "from the start until in sync"), PODWIRE, spent * 1e3)
    results.add(Figure(RESTART, kind, LOST, ""), PODWIRE, lost)
    withdrawn = sum(change.deleted for change in changes)
    results.add(Figure(RESTART, kind, WITHDRAWN, ""), PODWIRE, withdrawn)
    results.add(Figure(RESTART, kind, TOUCHED, ""), PODWIRE, len(changes))
