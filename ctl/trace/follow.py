"""Follow a packet from a pod, the node or beyond: look the way up, send, and say where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ctl.attachments import Attachment
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
from kernel.packets import ICMP, ICMP_OF
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


def follow(
    nl: Netlink,
    known: Sequence[Attachment],
    planned: Planned | None,
    health: Mapping[str, PeerHealth],
    request: Request,
) -> Trace:
    """Trace once. Raises Unusable, KernelError.

    nl: a socket in the node's namespace. known: the node's attachments. planned: None where the
    node has no plan. health: what probes found, by the name of the peer.
    """
    with ExitStack() as stack:
        return _Follower(nl, known, planned, request, stack).follow(health)


class _Follower:
    def __init__(
        self,
        nl: Netlink,
        known: Sequence[Attachment],
        planned: Planned | None,
        request: Request,
        stack: ExitStack,
    ) -> None:
        self._nl, self._known, self._planned, self._request = nl, known, planned, request
        self._desired = planned.desired if planned else None
        self._flow, self._stack = _flow_of(request), stack
        self._pod, self._to_pod = request.source.pod, request.to.pod
        opened = open_pod_namespace(nl, self._pod) if self._pod else None
        self._sender = stack.enter_context(opened) if opened else None
        self._entry = self._find_entry() if request.source.is_outside else None

    def follow(self, health: Mapping[str, PeerHealth]) -> Trace:
        request, flow = self._request, self._flow
        seen, unsent = None, ""
        if request.sends:
            seen = self._probe()
            behind = self._pod_behind(seen)
            if behind is not None and behind is not self._to_pod:
                # Its links are watched as well, now that a translation has shown them.
                self._to_pod = behind
                seen = self._probe()
        if self._entry and seen and seen.result == "not sent":
            unsent, seen = seen.detail, None
        walk = Walk(self._nl, flow, seen, self._planned, health, self._known)
        hops, answer = list(self._hops(walk)), None
        if seen:
            # A rule that rejects answers in the destination's name.
            counts = [hop.sent for hop in hops if hop.sent is not None]
            if seen.result == "refused" and not seen.missed and counts and counts[-1] == 0:
                seen.result = "rejected"
            answer = walk.answer(seen)
        verdict = judge(hops, answer, seen, unsent)
        to = _title(request.to, flow.to) + (f" port {flow.port}" if flow.port else "")
        shown = (*hops, answer) if answer else tuple(hops)
        return Trace(_title(request.source, flow.source), to, shown, verdict, seen)

    def _find_entry(self) -> Entry:
        """The link by which packets of the client come in. Raises Unusable."""
        client = self._flow.source
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
        return Entry(client, name, link.index, link.mac)

    def _probe(self) -> Observed:
        desired, overlay = self._desired, None
        if desired and desired.device and desired.device.vxlan:
            overlay = desired.underlay.version, desired.device.vxlan.port
        points, patience = list(self._points()), self._request.patience
        return probe(self._flow, self._sender, points, overlay, patience, self._entry)

    def _points(self) -> Iterator[Point]:
        """Where frames are counted, each link once."""
        pod, to_pod, desired = self._pod, self._to_pod, self._desired
        links: list[str] = []
        if pod and self._sender:
            yield Point(SOURCE_POD, pod.owner.ifname, self._sender)
            links += [pod.host if pod.end else "", pod.bridge]
        if to_pod and to_pod is not pod and to_pod.end:
            links += [to_pod.host, to_pod.bridge]
            with suppress(Unusable, KernelError):  # its node's end is watched anyway
                inner = self._stack.enter_context(open_pod_namespace(self._nl, to_pod))
                yield Point(DESTINATION_POD, to_pod.owner.ifname, inner)
        if desired:
            links += [desired.uplink, desired.device.name if desired.device else ""]
        if self._entry:
            links.append(self._entry.link)
        for link in dict.fromkeys(filter(None, links)):
            if read_link(self._nl, link):
                yield Point(link, link)

    def _pod_behind(self, seen: Observed) -> Attachment | None:
        """The pod of this node that a translation led to."""
        hooks = seen.hooks()
        last = hooks.get("prerouting_last") or hooks.get("output_last")
        return self._pod_of(last.to) if last and last.to else None

    def _pod_of(self, address: IPAddress) -> Attachment | None:
        return next((each for each in self._known if address in each.ips and each.end), None)

    def _hops(self, walk: Walk) -> Iterator[Hop]:
        pod, to_pod, iif = self._pod, self._to_pod, ""
        if self._entry:
            iif = self._entry.link
            yield walk.come_in(self._entry)
        if pod and self._sender:
            is_direct = yield from walk.leave_pod(pod, self._sender, to_pod)
            if is_direct and to_pod:
                yield from walk.enter_pod(to_pod)
                return
            iif = pod.bridge or pod.host
        yield from walk.cross_node(iif, to_pod)


def _flow_of(request: Request) -> Flow:
    source, to = request.source, request.to
    for address in to.addresses:
        mine = source.address(address.version)
        if mine or source.pod is None:
            is_icmp = request.protocol == ICMP
            protocol = ICMP_OF[address.version] if is_icmp else request.protocol
            return Flow(mine, address, protocol, request.port, request.size)
    versions = " and ".join(f"IPv{a.version}" for a in to.addresses) or "no address"
    raise Unusable(f"{source.name} has no address of the family of {to.name} ({versions})")


def _title(end: End, address: IPAddress | None) -> str:
    return f"{end.name} ({address})" if address and end.name != str(address) else end.name
