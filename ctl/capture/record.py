"""Record the frames of several links at once, for a time and up to a size."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO

from ctl.capture import pcapng
from kernel.netns import Namespace
from kernel.packet_socket import Frame, PacketSocket
from kernel.packets import VXLAN_PORT, Packet, decode


@dataclass(frozen=True, slots=True)
class Place:
    """A link to watch. namespace: None for the node's. wanted: the packets that are taken."""

    link: str
    description: str
    wanted: Callable[[Packet], bool]
    namespace: Namespace | None = None


@dataclass(slots=True)
class Recorded:
    """What was recorded. frames, dropped: by place. full: whether the size ended it."""

    frames: list[int]
    dropped: list[int]
    bytes: int = 0
    full: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """seconds, and bytes of the file. snap: bytes that are kept of a frame."""

    seconds: float
    bytes: int
    snap: int


Show = Callable[[Place, Frame, Packet], None]
"""Is given each packet that was taken, with its frame."""


class Recorder:
    """Records once, into the file, if there is one."""

    def __init__(
        self,
        places: Sequence[Place],
        limits: Limits,
        file: IO[bytes] | None,
        show: Show | None,
        vxlan_port: int = VXLAN_PORT,
    ) -> None:
        self.places, self.limits, self._file, self._show = places, limits, file, show
        self._vxlan_port = vxlan_port
        self.recorded = Recorded([0] * len(places), [0] * len(places))

    def run(self) -> Recorded:
        """Record until the time is over, the size is reached, or an interrupt. Raises KernelError.

        The file is complete in each case.
        """
        with ExitStack() as stack:
            sockets = [stack.enter_context(PacketSocket(p.link, p.namespace)) for p in self.places]
            self._put(pcapng.begin([pcapng.Interface(p.link, p.description) for p in self.places]))
            with suppress(KeyboardInterrupt):
                self._loop(sockets)
            self._end(sockets)
        return self.recorded

    def _loop(self, sockets: Sequence[PacketSocket]) -> None:
        poll = select.poll()
        for each in sockets:
            poll.register(each.fileno(), select.POLLIN)
        end = time.monotonic() + self.limits.seconds
        while (left := end - time.monotonic()) > 0 and not self.recorded.full:
            poll.poll(left * 1000)
            waiting = [(f.time, n, f) for n, each in enumerate(sockets) for f in each.read()]
            for _time, number, frame in sorted(waiting, key=lambda w: w[:2]):
                self._take(number, frame)

    def _take(self, number: int, frame: Frame) -> None:
        packet, place = decode(frame.data, self._vxlan_port), self.places[number]
        if packet is None or self.recorded.full or not place.wanted(packet):
            return
        data = frame.data[: self.limits.snap]
        block = pcapng.render_frame(
            number, frame.time, data, len(frame.data), outgoing=frame.outgoing
        )
        if self.recorded.bytes + len(block) > self.limits.bytes:
            self.recorded.full = True
            return
        self._put(block)
        self.recorded.frames[number] += 1
        if self._show:
            self._show(place, frame, packet)

    def _end(self, sockets: Sequence[PacketSocket]) -> None:
        now = time.time_ns()
        for number, each in enumerate(sockets):
            self.recorded.dropped[number] = each.dropped
            self._put(pcapng.render_dropped(number, now, each.dropped))

    def _put(self, data: bytes) -> None:
        if self._file:
            self._file.write(data)
        self.recorded.bytes += len(data)
