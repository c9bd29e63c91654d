"""Whether rules of other programs on this node drop what pods and the overlay need.

Probes start and end on nodes, so a drop on the forwarding path stops none of them; one of VXLAN
looks like a fault of the peer. So the rules are evaluated: after a change of any of them, and now
and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Protocol

from cni_plugin.config import DEFAULT_BRIDGE
from daemon.config.schema import Settings
from daemon.model import Desired, any_pod
from daemon.outages import Outages
from daemon.routing.reporter import Reporter
from kernel.errors import KernelError
from kernel.legacy_filter import LegacyRules
from kernel.model import Element, Route
from kernel.netlink.monitor import RuleChange
from kernel.nftables.flow import Flow
from kernel.nftables.foreign import (
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    ForeignRules,
)
from kernel.nftables.port_mappings import HOST_PORT_PRIORITY, describe_port, flow_of, pod_of
from kernel.nftables.table import TABLE, open_nft
from kernel.sysctl import read_sysctl

INTERVAL = 60.0
"""Seconds between evaluations where no rule changed."""
LEGACY_INTERVAL = 3.0
"""The same of rules of iptables-legacy, whose changes are announced to nobody."""
_GAP, _GAP_EACH = 0.5, 5.0
"""Seconds from a change of rules to their evaluation, and between evaluations at least."""
_TCP, _UDP = 6, 17
_ANY_PORT = 49151
"""The port of a service that no rule is about."""
_POD_LINK = "pw00000000000"
# Documentation addresses (RFC 5737, RFC 3849) for clients from outside.
_OUTSIDE = {4: ip_address("203.0.113.1"), 6: ip_address("2001:db8::1")}

_UNTRACKED = ", without `ct state new`, as it is untracked"
_NEAR = "what pods send to each other on this node"
_Case = tuple[str, Flow, tuple[int, ...]]
"""What a packet is, and the hooks that it passes."""


class _Rules(Protocol):
    """Rules of other programs, whatever they were made with."""

    def find_drop(self, flow: Flow, *hooks: int) -> str:
        """What certainly drops the packet on these hooks; empty where nothing does."""

    def find_translation(self, flow: Flow, priority: int, *, services: bool = True) -> str:
        """What certainly gives the packet another destination; empty where nothing does."""


@dataclass(frozen=True, slots=True)
class Drops:
    """What is dropped, in sentences. node: of the overlay and of probes; pods: between pods.

    ports: what does not reach host ports, for another program's rule leads it elsewhere.
    """

    node: str = ""
    pods: str = ""
    ports: str = ""

    def __or__(self, other: Drops) -> Drops:
        return Drops(self.node or other.node, self.pods or other.pods, self.ports or other.ports)

    @property
    def texts(self) -> tuple[str, ...]:
        """What there is, what concerns most pods first."""
        return tuple(filter(None, (self.pods, self.node, self.ports)))


class ForeignFilters:
    """Evaluates them for the plan. blocked: what is dropped of the overlay and of probes."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._outages = Outages(reporter.journal, "firewall")
        self._due_at = self._checked_at = self._legacy_at = -math.inf
        self._nft = Drops()
        self.blocked = ""

    def receive(self, change: RuleChange) -> None:
        """Take the event of a rule in."""
        if change.table != TABLE:
            soon = max(time.monotonic() + _GAP, self._checked_at + _GAP_EACH)
            self._due_at = min(self._due_at, soon)

    def check(self, desired: Desired, mappings: Iterable[Element] = ()) -> None:
        """Evaluate the rules if that is due, and report what they drop. mappings: of host ports."""
        now = time.monotonic()
        if now < self._due_at and now < self._legacy_at:
            return
        self._legacy_at = now + LEGACY_INTERVAL
        if now >= self._due_at:
            self._checked_at, self._due_at = now, now + INTERVAL
            try:
                self._nft = find_nft_drops(self._settings, desired, mappings)
            except KernelError as error:
                self._reporter.report_failure(str(error))
                return
        found = self._nft | find_legacy_drops(self._settings, desired, mappings)
        self.blocked, text = found.node, "; ".join(found.texts)
        self._reporter.report_fault("firewall", text)
        self._outages.update({"of this node": text} if text else {})


def find_nft_drops(settings: Settings, desired: Desired, mappings: Iterable[Element] = ()) -> Drops:
    """What rules of nftables, and of iptables-nft, drop. Raises KernelError."""
    with open_nft() as nl:
        rules = ForeignRules(nl)
        bridged = _first_drop(rules.find_bridge_drop, _bridge_cases(settings, desired))
        return _find_drops(rules, settings, desired, mappings) | Drops(pods=bridged)


def find_legacy_drops(
    settings: Settings, desired: Desired, mappings: Iterable[Element] = ()
) -> Drops:
    """What rules of iptables-legacy drop."""
    rules = LegacyRules()
    return _find_drops(rules, settings, desired, mappings) if rules.tables else Drops()


def _find_drops(
    rules: _Rules, settings: Settings, desired: Desired, mappings: Iterable[Element]
) -> Drops:
    return Drops(
        _first_drop(rules.find_drop, _node_cases(settings, desired)),
        _first_drop(rules.find_drop, _pod_cases(settings, desired)),
        _first_translation(rules, desired, mappings),
    )


def _first_translation(rules: _Rules, desired: Desired, mappings: Iterable[Element]) -> str:
    """What takes connections to a host port elsewhere than to its pod.

    A Service at the node's address comes first, and is meant to: a load balancer of k3s is a pod
    with that host port.
    """
    for element in mappings:
        mapped, pod = flow_of(element), pod_of(element)
        own = desired.me.address(mapped.version) if mapped else None
        if mapped is None or own is None:
            continue
        to, outside = mapped.address or own, _OUTSIDE[mapped.version]
        flow = Flow(outside, to, mapped.protocol, mapped.port, desired.uplink, is_local=True)
        where = rules.find_translation(flow, HOST_PORT_PRIORITY, services=False)
        if where:
            return describe_translation(describe_port(element), pod, where)
    return ""


def describe_translation(port: str, pod: object, where: str) -> str:
    """The finding of a host port that another program's rule translates."""
    return (
        f"this node's own NAT leads host port {port} elsewhere than to its pod {pod}: {where}: "
        "remove that rule, or map another port"
    )


def _node_cases(settings: Settings, desired: Desired) -> Iterator[_Case]:
    """What the overlay and the probes need of input and output."""
    health, uplink, own = settings.health, desired.uplink, desired.underlay
    ports = {"VXLAN": settings.vxlan.port} if desired.device else {}
    ports |= {"probes": health.port} if health else {}
    addresses = (desired.nodes[name].address(own.version) for name in desired.peers)
    peer = next((address for address in addresses if address is not None), None)
    if peer is None:
        return
    for what, port in ports.items():
        # The daemon keeps it out of connection tracking wherever rules ask for that.
        is_untracked = what == "VXLAN"
        name = f"{what} (UDP port {port})"
        into = Flow(peer, own, _UDP, port, uplink, is_local=True, is_untracked=is_untracked)
        yield f"{name} from peers", into, (PREROUTING, INPUT)
        out = Flow(own, peer, _UDP, port, "", uplink, is_untracked=is_untracked)
        yield f"{name} to peers", out, (OUTPUT, POSTROUTING)


def _pod_cases(settings: Settings, desired: Desired) -> Iterator[_Case]:
    """What pods need of the forwarding path, by family."""
    conflist, hooks = settings.conflist, (PREROUTING, FORWARD, POSTROUTING)
    pods = {"bridge": DEFAULT_BRIDGE, "ptp": _POD_LINK}[conflist.mode] if conflist else ""
    for prefix in desired.pod_cidrs:
        route = _route(desired, prefix.version)
        if conflist and (conflist.mode == "ptp" or is_bridge_filtered(prefix.version)):
            one, other = any_pod(prefix), any_pod(prefix) + 1
            near = Flow(one, other, _TCP, _ANY_PORT, pods, pods, is_example=True)
            yield _NEAR, near, hooks
        if route:
            here, there = any_pod(prefix), any_pod(route.dst)
            out = Flow(here, there, _TCP, _ANY_PORT, pods, route.link, is_example=True)
            back = Flow(there, here, _TCP, _ANY_PORT, route.link, pods, is_example=True)
            yield "what pods send to other nodes", out, hooks
            yield "what other nodes' pods send to pods here", back, hooks


def _bridge_cases(settings: Settings, desired: Desired) -> Iterator[_Case]:
    """What pods on the daemon's bridge need of its hooks, by family."""
    if settings.conflist is None or settings.conflist.mode != "bridge":
        return
    for prefix in desired.pod_cidrs:
        one, other = any_pod(prefix), any_pod(prefix) + 1
        near = Flow(one, other, _TCP, _ANY_PORT, _POD_LINK, _POD_LINK, is_example=True)
        yield _NEAR, near, (PREROUTING, FORWARD, POSTROUTING)
        yield "what pods send", replace(near, oif=""), (PREROUTING, INPUT)
        to_pod = replace(near, source=other, to=one, iif="")
        yield "what pods receive", to_pod, (OUTPUT, POSTROUTING)


def _first_drop(find: Callable[..., str], cases: Iterable[_Case]) -> str:
    found = ((what, flow, find(flow, *hooks)) for what, flow, hooks in cases)
    texts = (
        f"drops {what}: {where}: accept it there{_UNTRACKED if flow.is_untracked else ''}"
        for what, flow, where in found
        if where
    )
    return next((f"this node's own firewall {text}" for text in texts), "")


def _route(desired: Desired, version: int) -> Route | None:
    """A route to pods of any other node."""
    entries = (entry for entries in desired.peers.values() for entry in entries)
    routes = (entry for entry in entries if isinstance(entry, Route))
    return next((route for route in routes if route.dst.version == version), None)


def is_bridge_filtered(version: int) -> bool:
    """Whether what a bridge passes from port to port goes through filters of IP as well."""
    name = {4: "iptables", 6: "ip6tables"}[version]
    return read_sysctl(f"net/bridge/bridge-nf-call-{name}") == "1"
