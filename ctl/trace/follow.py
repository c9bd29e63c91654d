"""Follow a packet from a pod, the node or beyond: look the way up, send, and say where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ctl.attachments import Attachment, Attachments
from ctl.planning import Planned
from ctl.pod_namespace import open_pod_namespace
from ctl.trace.ends import End
from ctl.trace.hop import Hop, Trace
from ctl.trace.outside import Entry
from ctl.trace.probe import DESTINATION_POD, SOURCE_POD, Observed, Point, probe
from ctl.trace.sender import Flow
from ctl.trace.verdicts import judge
from ctl.trace.walk import Walk
from daemon.options import Unusable
from daemon.probes.report import PeerHealth
from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace
from kernel.paths import Packet, find_paths, local_addresses
from kernel.read import read_link

_MAC_CHARACTERS = 17


@dataclass(frozen=True, slots=True)
class Request:
    """What to trace. size: of the IP packet in bytes, 0: the smallest. patience: in seconds.

    sends: whether packets are sent.
    """

    source: End
    to: End
    protocol: int
    port: int = 0
    size: int = 0
    patience: float = 2.0
    sends: bool = True


class Follower:
    """Traces on one node."""

    def __init__(
        self,
        nl: Netlink,
        attachments: Attachments,
        planned: Planned | None,
        health: Mapping[str, PeerHealth],
    ) -> None:
        """nl: a socket in the node's namespace. planned: None where the node has no plan.

        health: what probes found, by the name of the peer.
        """
        self._health = health
        self._nl, self._known, self._planned = nl, attachments.found, planned
        self._desired = planned.desired if planned else None

    def follow(self, request: Request) -> Trace:
        """Trace once. Raises Unusable, KernelError."""
        with ExitStack() as stack:
            return self._follow(request, stack)

    def _follow(self, request: Request, stack: ExitStack) -> Trace:
        flow = self._flow(request)
        pod = request.source.pod
        sender = stack.enter_context(open_pod_namespace(self._nl, pod)) if pod else None
        entry = self._entry(flow) if request.source.is_outside else None
        seen, to_pod, unsent = None, request.to.pod, ""
        if request.sends:
            seen = self._probe(flow, pod, sender, to_pod, entry, request, stack)
            behind = self._pod_behind(seen)
            if behind is not None and behind is not to_pod:
                # Its links are watched as well, now that a translation has shown them.
                to_pod = behind
                seen = self._probe(flow, pod, sender, to_pod, entry, request, stack)
        if entry and seen and seen.result == "not sent":
            unsent, seen = seen.detail, None
        walk = Walk(self._nl, flow, seen, self._planned, self._health, self._known)
        hops = list(self._hops(walk, pod, sender, to_pod, entry))
        if seen:
            # A rule that rejects answers in the destination's name.
            counts = [hop.sent for hop in hops if hop.sent is not None]
            if seen.result == "refused" and not seen.missed and counts and counts[-1] == 0:
                seen.result = "rejected"
            hops.append(walk.answer(seen))
        summary = judge(hops, seen, unsent)
        named = (
            f"{request.to.name} ({flow.to})" if request.to.name != str(flow.to) else str(flow.to)
        )
        port = f" port {flow.port}" if flow.port else ""
        source = f"{request.source.name} ({flow.source})" if flow.source else request.source.name
        reached = seen.is_reached if seen else None
        return Trace(source, f"{named}{port}", tuple(hops), reached, summary, seen)

    def _entry(self, flow: Flow) -> Entry:
        """The link by which packets of the client come in. Raises Unusable."""
        client = flow.source
        if client is None:
            raise Unusable("the client has no address")
        if local_addresses(self._nl, [client]):
            raise Unusable(f"{client} is this node's own address: trace from `node`")
        if pod := self._pod_of(client):
            raise Unusable(f"{client} is the address of {pod.title}: trace from that pod")
        name = find_paths(self._nl, [Packet(client)])[0].link
        name = name or (self._desired.uplink if self._desired else "")
        link = read_link(self._nl, name) if name else None
        if link is None:
            raise Unusable(f"no link leads to {client}, so nothing comes in from there")
        if link.mac is None or len(link.mac) != _MAC_CHARACTERS:
            raise Unusable(f"{client} is behind {name}, which is no Ethernet link")
        return Entry(name, link.index, link.mac)

    def _flow(self, request: Request) -> Flow:
        source, to = request.source, request.to
        for address in to.addresses:
            mine = source.address(address.version)
            if mine or source.pod is None:
                protocol = 58 if (request.protocol, address.version) == (1, 6) else request.protocol
                return Flow(mine, address, protocol, request.port, request.size)
        versions = " and ".join(f"IPv{a.version}" for a in to.addresses) or "no address"
        raise Unusable(f"{source.name} has no address of the family of {to.name} ({versions})")

    def _probe(
        self,
        flow: Flow,
        pod: Attachment | None,
        sender: Namespace | None,
        to_pod: Attachment | None,
        entry: Entry | None,
        request: Request,
        stack: ExitStack,
    ) -> Observed:
        points = list(self._points(pod, sender, to_pod, entry, stack))
        desired = self._desired
        overlay = None
        if desired and desired.device and desired.device.vxlan:
            overlay = desired.underlay.version, desired.device.vxlan.port
        return probe(flow, sender, points, overlay, request.patience, entry)

    def _points(
        self,
        pod: Attachment | None,
        sender: Namespace | None,
        to_pod: Attachment | None,
        entry: Entry | None,
        stack: ExitStack,
    ) -> Iterator[Point]:
        found: dict[str, Point] = {}
        if pod and sender:
            found[SOURCE_POD] = Point(SOURCE_POD, pod.owner.ifname, sender)
            found |= self._host_points(pod)
        if to_pod and to_pod is not pod and to_pod.end:
            found |= self._host_points(to_pod)
            try:
                inner = stack.enter_context(open_pod_namespace(self._nl, to_pod))
                found[DESTINATION_POD] = Point(DESTINATION_POD, to_pod.owner.ifname, inner)
            except (Unusable, KernelError):
                pass  # its node's end is watched anyway
        desired = self._desired
        links = (desired.uplink, desired.device.name if desired.device else "") if desired else ()
        for link in (*links, entry.link if entry else ""):
            if link:
                found[link] = Point(link, link)
        for point in found.values():
            if point.namespace or read_link(self._nl, point.link):
                yield point

    def _host_points(self, pod: Attachment) -> dict[str, Point]:
        names = [name for name in (pod.host if pod.end else "", pod.bridge) if name]
        return {name: Point(name, name) for name in names}

    def _pod_behind(self, seen: Observed) -> Attachment | None:
        """The pod of this node that a translation led to."""
        hooks = seen.hooks()
        last = hooks.get("prerouting_last") or hooks.get("output_last")
        return self._pod_of(last.to) if last and last.to else None

    def _pod_of(self, address: IPAddress) -> Attachment | None:
        return next((each for each in self._known if address in each.ips and each.end), None)

    def _hops(
        self,
        walk: Walk,
        pod: Attachment | None,
        sender: Namespace | None,
        to_pod: Attachment | None,
        entry: Entry | None,
    ) -> Iterator[Hop]:
        iif = entry.link if entry else ""
        if entry:
            yield walk.come_in(entry)
        if pod and sender:
            is_direct = yield from walk.leave_pod(pod, sender, to_pod)
            if is_direct and to_pod:
                yield from walk.enter_pod(to_pod)
                return
            iif = pod.bridge or pod.host
        yield from walk.cross_node(iif, to_pod)
