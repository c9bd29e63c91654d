"""Send real packets, and see where they pass: at links, and at the hooks of the node's rules."""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field

from ctl.trace.outside import Entry, OutsideSender
from ctl.trace.sender import Flow, Sender, SocketSender
from kernel.model import IPAddress
from kernel.netns import Namespace, inside
from kernel.nftables.tracer import TRACER, TraceEvent, Tracer
from kernel.packet_socket import PacketSocket
from kernel.packets import TCP, UDP, VXLAN_PORT, Packet, decode, describe_icmp

SOURCE_POD, DESTINATION_POD = "source pod", "destination pod"
BEYOND = "beyond"
"""The point of packets between a client beyond the node and the link that leads there."""
_SETTLE = 0.05
"""Seconds for which what is under way is still read after the answer."""


@dataclass(frozen=True, slots=True)
class Point:
    """A link where frames are counted. namespace: None for the node's."""

    name: str
    link: str
    namespace: Namespace | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A rule, or the policy of a chain, that a packet of ours met. after: the hook of the tracer
    that it passed last. is_reply: whether it is an answer's packet."""

    event: TraceEvent
    after: str
    is_reply: bool
    is_overlay: bool
    source: IPAddress | None
    to: IPAddress | None
    port: int

    @property
    def is_drop(self) -> bool:
        """Whether the packet ends there."""
        return self.event.verdict == "drop"


@dataclass(slots=True)
class Observed:
    """What was seen. result: answered, refused (by the destination), rejected (on the way there),
    no answer, unreachable, not sent.

    detail: the error; seconds: until the answer. sent, answers: frames by point.
    errors: ICMP errors about our packets, each with who sent it. missed: frames that came too fast.
    """

    flow: Flow
    result: str = "no answer"
    detail: str = ""
    seconds: float | None = None
    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    steps: list[Step] = field(default_factory=list)
    errors: list[tuple[IPAddress, str]] = field(default_factory=list)
    missed: int = 0
    pod_steps: list[Step] = field(default_factory=list)

    @property
    def is_reached(self) -> bool:
        """Whether the destination answered."""
        return self.result in ("answered", "refused")

    def hooks(self) -> Mapping[str, Step]:
        """The last step of our packets at each of the tracer's own chains."""
        own = (s for s in self.steps if s.event.is_own and not s.is_reply)
        return {s.event.chain: s for s in own if not s.is_overlay}

    def drop(self, *, reply: bool = False) -> Step | None:
        """What a rule or a policy dropped."""
        found = (s for s in self.steps if s.is_drop and s.is_reply == reply)
        return next(found, None)


def probe(
    flow: Flow,
    sender: Namespace | None,
    points: Sequence[Point],
    overlay: tuple[int, int] | None,
    patience: float,
    entry: Entry | None = None,
) -> Observed:
    """Send from the namespace (None: the node's) and watch, for `patience` seconds at most.

    overlay: the family of the underlay, and the port of VXLAN. entry: where a client's packets come
    in; None where none is meant. Raises KernelError.
    """
    with ExitStack() as stack:
        name, within = f"{TRACER}_{os.getpid()}", None
        with inside(sender) if sender else nullcontext():
            try:
                made = OutsideSender(flow, entry) if entry else SocketSender(flow)
            except OSError as error:
                return Observed(flow, "not sent", os.strerror(error.errno or 0))
            stack.enter_context(closing(made))
            if sender:
                within = stack.enter_context(Tracer(name, list(made.matches(None))))
        tracer = stack.enter_context(Tracer(name, list(made.matches(overlay))))
        watched = [(p, stack.enter_context(PacketSocket(p.link, p.namespace))) for p in points]
        port = overlay[1] if overlay else VXLAN_PORT
        return _Observer(made, tracer, within, watched, port).run(patience)


class _Observer:
    def __init__(
        self,
        sender: Sender,
        tracer: Tracer,
        within: Tracer | None,
        watched: Sequence[tuple[Point, PacketSocket]],
        vxlan_port: int,
    ) -> None:
        self.found = Observed(sender.flow)
        self._within = within
        self._sender, self._tracer, self._watched = sender, tracer, watched
        self._vxlan_port = vxlan_port
        self._headers: dict[int, tuple[TraceEvent, str]] = {}

    def run(self, patience: float) -> Observed:
        found, began = self.found, time.monotonic()
        fault = self._sender.send()
        if fault:
            found.result, found.detail = "not sent", fault
        end = began + (patience if not fault else _SETTLE)
        self._wait(began, end)
        self._drain()
        found.missed = sum(sock.dropped for _point, sock in self._watched)
        return found

    def _wait(self, began: float, end: float) -> None:
        poll = select.poll()
        for number in (self._tracer.fileno(), *(s.fileno() for _p, s in self._watched)):
            poll.register(number, select.POLLIN)
        events = self._sender.events
        if events:
            poll.register(*events)
        is_open = True
        while (left := end - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self._drain()
            if is_open and self.found.result == "no answer":
                result, detail = self._sender.poll()
                if result:
                    self.found.result, self.found.detail = result, detail
                    self.found.seconds = time.monotonic() - began
                    if events:
                        poll.unregister(events[0])
                    is_open = False
                    end = min(end, time.monotonic() + _SETTLE)

    def _drain(self) -> None:
        for point, sock in self._watched:
            for frame in sock.read():
                packet = decode(frame.data, self._vxlan_port)
                if packet:
                    self._note(point, packet, outgoing=frame.outgoing)
        for event in self._tracer.read():
            self._trace(event, self.found.steps)
        if self._within:
            for event in self._within.read():
                self._trace(event, self.found.pod_steps)

    def _note(self, point: Point, packet: Packet, *, outgoing: bool) -> None:
        for layer in packet.layers:
            direction = self._sender.direction(layer)
            link = "" if point.namespace else point.link
            is_beyond = self._sender.passes(link, layer, direction, outgoing=outgoing)
            name = BEYOND if is_beyond else point.name
            if name == SOURCE_POD and outgoing != (direction == "sent"):
                name = DESTINATION_POD  # by a port of the node's, which leads back to the pod
            if direction == "sent":
                self.found.sent[name] += 1
            elif direction == "answer":
                self.found.answers[name] += 1
            elif direction == "error":
                error = (layer.source, describe_icmp(layer))
                if error not in self.found.errors:
                    self.found.errors.append(error)

    def _trace(self, event: TraceEvent, steps: list[Step]) -> None:
        known = self._headers.get(event.number)
        head, after = known if known else (event, "")
        if event.source is not None:
            head = event
        if event.is_own:
            after = event.chain
        self._headers[event.number] = (head, after)
        begin = head.transport
        ident = self._sender.ident.to_bytes(2)
        if self._sender.flow.protocol in (TCP, UDP):
            overlay = ident not in (begin[:2], begin[2:4])
            reply = begin[2:4] == ident
        else:
            overlay = begin[4:6] != ident
            reply = bool(begin) and begin[0] in (0, 129)
        if overlay:
            reply = after.startswith(("prerouting", "input"))
        port = int.from_bytes(begin[2:4])
        steps.append(Step(event, after, reply, overlay, head.source, head.to, port))
