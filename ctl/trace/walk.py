"""The hops of one flow, as this node's kernel would lead it, with what was seen at each."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator, Mapping, Sequence

from ctl.attachments import Attachment
from ctl.planning import Planned
from ctl.trace.blame import describe_step, find_translation, is_podwires
from ctl.trace.hop import Hop
from ctl.trace.neighbours import find_hint, find_neighbour, wrong_neighbour
from ctl.trace.outside import Entry
from ctl.trace.overlay import overlay_hops
from ctl.trace.probe import BEYOND, DESTINATION_POD, SOURCE_POD, Observed, Step
from ctl.trace.sender import Flow
from daemon.probes.report import PeerHealth
from kernel.legacy_filter import LegacyRules
from kernel.link_hooks import describe_hooks
from kernel.model import Link, Route
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace, inside
from kernel.nftables import foreign
from kernel.nftables.flow import Flow as FilteredFlow
from kernel.nftables.port_mappings import (
    HOST_PORT_PRIORITY,
    describe_port,
    find_mapping,
    pod_of,
    pod_port_of,
)
from kernel.nftables.table import open_nft
from kernel.paths import Packet, PacketPath, find_paths, local_addresses
from kernel.read import read_link
from kernel.sysctl import read_sysctl

_FORWARDING = {4: "net/ipv4/conf/{}/forwarding", 6: "net/ipv6/conf/all/forwarding"}
_HOOK_NAMES = {"prerouting": foreign.PREROUTING, "input": foreign.INPUT,
               "forward": foreign.FORWARD, "output": foreign.OUTPUT,
               "postrouting": foreign.POSTROUTING}  # fmt: skip

_REFUSALS = {
    errno.EINVAL: "a blackhole",
    errno.EACCES: "a prohibiting route",
    errno.EHOSTUNREACH: "an unreachable route",
    errno.ENETUNREACH: "no route",
}


class Walk:
    """The hops of one flow."""

    def __init__(
        self,
        nl: Netlink,
        flow: Flow,
        seen: Observed | None,
        planned: Planned | None,
        health: Mapping[str, PeerHealth],
        known: Sequence[Attachment],
    ) -> None:
        self._nl, self._flow, self._seen, self._planned = nl, flow, seen, planned
        self._source, self._to, self._port = flow.source, flow.to, flow.port
        self._health, self._known = health, known
        self._is_lost = False  # nothing more can be looked up

    def _counted(self, hop: Hop, point: str) -> Hop:
        if self._seen:
            hop.sent, hop.answers = self._seen.sent[point], self._seen.answers[point]
        return hop

    def _too_long(self, link: Link | None) -> str:
        """Why a packet of the flow's size does not pass; empty where it does."""
        if link is None or not link.mtu or self._flow.size <= link.mtu:
            return ""
        return f"{self._flow.size} bytes do not pass {link.name}, whose MTU is {link.mtu}"

    def _at_hook(self, hop: Hop, chain: str) -> Hop:
        """Counted at a hook of the tracer."""
        if self._seen:
            own = (s for s in self._seen.steps if s.event.is_own and not s.is_overlay)
            met = {(s.event.number, s.is_reply) for s in own if s.event.chain == chain}
            hop.answers = sum(is_reply for _number, is_reply in met)
            hop.sent = len(met) - hop.answers
        return hop

    def come_in(self, entry: Entry) -> Hop:
        """The link by which a packet of a client beyond the node comes in."""
        link = read_link(self._nl, entry.link)
        fault = _down(link, entry.link) or self._too_long(link)
        (back,) = find_paths(self._nl, [Packet(entry.client)])
        what = f"from beyond the node; answers go {back}"
        if not fault and not back.link:
            fault = f"no route leads back to {entry.client}: {os.strerror(back.errno)}"
        return self._counted(Hop(f"link {entry.link}", what, fault), BEYOND)

    def leave_pod(
        self, pod: Attachment, sender: Namespace, to_pod: Attachment | None
    ) -> Generator[Hop, None, bool]:
        """The pod's part, and the node's end; whether the bridge alone leads to the other pod."""
        name = pod.owner.ifname
        with inside(sender), Netlink() as inner:
            (path,) = find_paths(inner, [Packet(self._to, self._source)])
            link = read_link(inner, name)
            gateway = read_link(self._nl, pod.bridge or pod.host) if path.via else None
            next_hop = path.via or self._to
            fault = wrong_neighbour(inner, link, next_hop, gateway.mac if gateway else None)
            is_unresolved = link is not None and not find_neighbour(inner, link, next_hop)
        if not path.link:
            by = f" by rule {path.rule}" if path.rule else ""
            fault = f"the pod has {_describe_refusal(path)}{by}"
        elif path.link == "lo" and self._to not in pod.ips:
            fault = f"the pod's route to {self._to} leads to lo"
        if link and link.arp is False:
            fault = f"{name} of the pod resolves no neighbours (NOARP)"
        fault = _down(link, f"{name} of the pod") or fault
        drop = next((s for s in self._seen.pod_steps if s.is_drop), None) if self._seen else None
        if drop:
            rule = describe_step(drop, in_pod=True)
            fault = f"a rule in the pod's own namespace drops it: {rule}"
        hop = Hop("pod", f"route {path}", fault or self._too_long(link))
        self._counted(hop, SOURCE_POD)
        if hop.sent == 0 and is_unresolved:
            hop.hint = f"neighbour {next_hop} does not resolve on {name}"
        yield hop
        # Its MAC is a pod's own choice.
        yield self._node_end(pod, link.mac if link else None)
        if not pod.bridge:
            return False
        is_beside = to_pod is not None and to_pod.bridge == pod.bridge and self._to in to_pod.ips
        is_direct = bool(path.link) and path.via is None and is_beside
        yield self._bridge(pod.bridge, is_direct=is_direct)
        return is_direct

    def _node_end(self, pod: Attachment, mac: str | None) -> Hop:
        end = pod.end.link if pod.end else None
        link = read_link(self._nl, pod.bridge) if pod.bridge else end
        address = next((ip for ip in pod.ips if ip.version == self._to.version), None)
        fault = f"{pod.host} is gone: recreate the pod"
        if end:
            fault = _down(end, pod.host) or _port_fault(end, pod.bridge)
        if address and not fault:
            fault = wrong_neighbour(self._nl, link, address, mac)
        on = f", a port of {pod.bridge}" if pod.bridge else ""
        hop = Hop(f"link {pod.host}", f"the node's end of {pod.title}{on}", fault)
        is_limited = pod.record.whole.node.buckets or pod.record.whole.node.redirects
        hop.hint = describe_hooks(self._nl, end) if end and not is_limited else ""
        seen = self._counted(hop, pod.host)
        is_answered = self._seen is not None and self._seen.answers.total() > 0
        is_asked = seen.answers == 0 and (seen.sent == 0 or is_answered)
        if address and link and is_asked and not find_neighbour(self._nl, link, address):
            hop.hint = f"neighbour {address} does not resolve on {link.name}"
        return hop

    def _bridge(self, name: str, *, is_direct: bool) -> Hop:
        fault = _down(read_link(self._nl, name), name)
        if is_direct:
            drop = self._seen.drop() if self._seen else None
            fault = fault or (describe_step(drop) if drop else "")
            return Hop(f"bridge {name}", "from port to port", fault)
        return self._counted(Hop(f"bridge {name}", "to the node", fault), name)

    def enter_pod(self, pod: Attachment) -> Iterator[Hop]:
        """The other pod of this node."""
        yield self._node_end(pod, pod.pod_mac or None)
        hop = Hop("pod", f"{pod.owner.ifname} of {pod.title}")
        yield self._counted(hop, DESTINATION_POD)

    def cross_node(self, iif: str, to_pod: Attachment | None) -> Iterator[Hop]:
        """The node: its hooks and routes, and whatever the route leads to."""
        begin = "prerouting" if iif else "output"
        yield self._hook(begin, iif)
        if self._is_lost:
            return
        source = self._source if iif else None
        (path,) = find_paths(self._nl, [Packet(self._to, source, iif)])
        if local_addresses(self._nl, [self._to]):
            fault = self._source_fault(path, iif)
            hop = Hop("route", f"{self._to} is this node's own address", fault)
            yield self._at_hook(hop, "input_first")
            yield self._hook("input")
            return
        after = "forward_first" if iif else "postrouting_first"
        hop = Hop("route", str(path), self._route_fault(path, iif))
        yield self._at_hook(hop, after)
        if iif:
            yield self._hook("forward", iif, path.link)
        yield self._hook("postrouting", iif, path.link)
        yield from self._leave(path, to_pod)

    def _route_fault(self, path: PacketPath, iif: str) -> str:
        version = self._to.version
        setting = _FORWARDING[version].format(iif)
        if iif and read_sysctl(setting) == "0":
            return f"{setting.replace('/', '.')} is 0: this node does not forward"
        if path.link:
            return self._diverted(path)
        if fault := self._source_fault(path, iif):
            return fault
        return f"the route lookup ends at {_describe_refusal(path)}"

    def _source_fault(self, path: PacketPath, iif: str) -> str:
        """Whether the link takes no packet of that source (net/ipv4/fib_frontend.c)."""
        if path.errno not in (errno.EINVAL, errno.EXDEV) or self._to.version == 6 or not iif:
            return ""
        for place in (iif, "all"):
            if read_sysctl(f"net/ipv4/conf/{place}/rp_filter") == "1":
                return f"net.ipv4.conf.{place}.rp_filter is 1, and the route back leads elsewhere"
        return ""

    def _diverted(self, path: PacketPath) -> str:
        """Where the route to another node's pods should lead, if it leads elsewhere."""
        desired = self._planned.desired if self._planned else None
        for name, entries in desired.peers.items() if desired else ():
            for route in (e for e in entries if isinstance(e, Route)):
                if self._to in route.dst and route.link != path.link:
                    return f"{self._to} is of {name}, whose pods are behind {route.link}"
        return ""

    def _hook(self, hook: str, iif: str = "", oif: str = "") -> Hop:
        """One hook: translations, and drops, with the rules behind them."""
        hop = self._at_hook(Hop(f"node, {hook}", "rules"), f"{hook}_last")
        if self._seen is None:
            hop.fault = self._evaluate(hook, iif, oif)
            if hook in ("prerouting", "output") and not hop.fault:
                self._translate(hop, iif)
            return hop
        sent = [s for s in self._seen.steps if not s.is_reply and not s.is_overlay]
        found = find_translation(sent, f"{hook}_first", f"{hook}_last")
        if found:
            before, after, rule = found
            hop.what = _describe_translation(before, after, rule)
            is_diverted = before.to != after.to and not (rule and is_podwires(rule))
            hop.hint = hop.what if is_diverted else ""
            self._source, self._to = after.source or self._source, after.to or self._to
            self._port = after.port
        drop = next((s for s in sent if s.is_drop and s.after.startswith(hook)), None)
        if drop:
            hop.fault = f"dropped by {describe_step(drop)}"
        elif f"{hook}_first" in self._seen.hooks() and not hop.sent:
            legacy = self._evaluate(hook, iif, oif)
            hop.fault = legacy or "dropped here by what sends no trace (iptables-legacy, BPF)"
        return hop

    def _evaluate(self, hook: str, iif: str, oif: str) -> str:
        """What rules of iptables-legacy certainly do, and without packets those of nftables."""
        number = _HOOK_NAMES.get(hook)
        if number is None or self._source is None:
            return ""
        flow = FilteredFlow(self._source, self._to, self._flow.protocol, self._port, iif, oif)
        where = LegacyRules().find_drop(flow, number)
        if not where and self._seen is None:
            with open_nft() as nl:
                where = foreign.ForeignRules(nl).find_drop(flow, number)
        return f"dropped by {where}" if where else ""

    def _translate(self, hop: Hop, iif: str) -> None:
        """What translates the destination: host ports, and certainly NAT of others."""
        if self._source is None or not self._port:
            return
        is_own = bool(local_addresses(self._nl, [self._to]))
        protocol, port = self._flow.protocol, self._port
        flow = FilteredFlow(self._source, self._to, protocol, port, iif, is_local=is_own)
        where = LegacyRules().find_translation(flow, HOST_PORT_PRIORITY) if iif else ""
        if iif and not where:
            with open_nft() as nl:
                where = foreign.ForeignRules(nl).find_translation(flow, HOST_PORT_PRIORITY)
        if where:
            hop.what = f"DNAT by {where}: where to is seen by sending alone"
            self._is_lost = True
            return
        elements = (element for each in self._known for element in each.record.whole.elements)
        mapping = find_mapping(elements, protocol, self._to, port) if is_own else None
        to, to_port = (pod_of(mapping), pod_port_of(mapping)) if mapping else (None, 0)
        if mapping and to:
            hop.what = (
                f"DNAT {self._to} port {port} to {to} port {to_port} by host port "
                f"{describe_port(mapping)} (podwire)"
            )
            self._to, self._port = to, to_port

    def _leave(self, path: PacketPath, to_pod: Attachment | None) -> Iterator[Hop]:
        if to_pod is None or self._to not in to_pod.ips:
            to_pod = next((p for p in self._known if self._to in p.ips and p.end), None)
        desired = self._planned.desired if self._planned else None
        if to_pod and path.link in (to_pod.host, to_pod.bridge):
            yield from self.enter_pod(to_pod)
            return
        if not path.link:
            return
        if desired and desired.device and path.link == desired.device.name:
            for hop, point in overlay_hops(self._nl, path, self._to, desired, self._health):
                if point != desired.device.name:
                    hop.fault = hop.fault or self._overlay_drop()
                elif link := read_link(self._nl, point):
                    hop.hint = describe_hooks(self._nl, link)
                yield self._counted(hop, point) if point else hop
            return
        link = read_link(self._nl, path.link)
        fault = _down(link, path.link) or self._too_long(link)
        hint = find_hint(self._nl, link, path.via or self._to) if link else ""
        hop = Hop(f"link {path.link}", f"to {path.via or self._to}", fault, hint=hint)
        yield self._counted(hop, path.link)

    def _overlay_drop(self) -> str:
        """What a rule of this node did to the encapsulated packet."""
        steps = self._seen.steps if self._seen else ()
        drop = next((s for s in steps if s.is_overlay and s.is_drop), None)
        return f"the encapsulated packet is dropped by {describe_step(drop)}" if drop else ""

    def answer(self, seen: Observed) -> Hop:
        """What came back to the sender."""
        hop = Hop("answer", seen.result, "" if seen.is_reached else seen.detail)
        hop.verdict = "passed" if seen.is_reached else "dropped"
        drop = seen.drop(reply=True)
        if drop:
            hop.fault = f"the answer is dropped by {describe_step(drop)}"
        elif seen.errors and not seen.is_reached:
            hop.fault = "; ".join(f"{source} answers: {text}" for source, text in seen.errors)
        return hop


def _down(link: Link | None, name: str) -> str:
    """Why nothing passes a link; empty where packets do."""
    return "" if link and link.up else f"{name} {'is down' if link else 'is gone'}"


def _port_fault(link: Link, bridge: str) -> str:
    """Why the bridge and the node's end of a pod's pair pass each other nothing."""
    if bridge and (link.port is None or link.port.bridge != bridge):
        return f"{link.name} is no port of {bridge}"
    if link.port and link.port.blocks:
        return f"{link.name}, a port of {link.port.bridge}, is not in state forwarding"
    return ""


def _describe_refusal(path: PacketPath) -> str:
    return _REFUSALS.get(path.errno, os.strerror(path.errno))


def _describe_translation(before: Step, after: Step, rule: Step | None) -> str:
    texts = []
    if (before.to, before.port) != (after.to, after.port):
        texts.append(f"DNAT {_place(before)} to {_place(after)}")
    if before.source != after.source:
        texts.append(f"SNAT {before.source} to {after.source}")
    by = describe_step(rule) if rule else "connection tracking, or iptables-legacy"
    return f"{', '.join(texts)} by {by}"


def _place(step: Step) -> str:
    return f"{step.to} port {step.port}" if step.port else str(step.to)
