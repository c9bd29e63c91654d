"""Whether rules of other programs on this node drop what pods and the overlay need.

Probes start and end on nodes, so a drop on the forwarding path stops none of them; one of VXLAN
looks like a fault of the peer. So the rules are evaluated: after a change of any of them, and now
and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator

from cni_plugin.config import DEFAULT_BRIDGE
from daemon.config.schema import Settings
from daemon.model import Desired, any_pod
from daemon.outages import Outages
from daemon.routing.reporter import Reporter
from kernel.errors import KernelError
from kernel.model import Route
from kernel.netlink.monitor import RuleChange
from kernel.nftables.foreign import FORWARD, INPUT, OUTPUT, PREROUTING, Flow, ForeignRules
from kernel.nftables.table import TABLE, open_nft

INTERVAL = 60.0
"""Seconds between evaluations where no rule changed."""
_GAP, _GAP_EACH = 0.5, 5.0
"""Seconds from a change of rules to their evaluation, and between evaluations at least."""
_TCP, _UDP = 6, 17
_ANY_PORT = 49151
"""The port of a service that no rule is about."""
_POD_LINK = "pw00000000000"

_Case = tuple[str, Flow, tuple[int, ...]]
"""What a packet is, and the hooks that it passes."""


class ForeignFilters:
    """Evaluates them for the plan. blocked: what is dropped of the overlay and of probes."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._outages = Outages(reporter.journal, "firewall")
        self._due_at = self._checked_at = -math.inf
        self.blocked = ""

    def receive(self, change: RuleChange) -> None:
        """Take the event of a rule in."""
        if change.table != TABLE:
            soon = max(time.monotonic() + _GAP, self._checked_at + _GAP_EACH)
            self._due_at = min(self._due_at, soon)

    def check(self, desired: Desired) -> None:
        """Evaluate the rules if that is due, and report what they drop."""
        now = time.monotonic()
        if now < self._due_at:
            return
        self._checked_at, self._due_at = now, now + INTERVAL
        try:
            with open_nft() as nl:
                rules = ForeignRules(nl)
                self.blocked = _first_drop(rules, self._node_cases(desired))
                forward = _first_drop(rules, self._pod_cases(desired))
        except KernelError as error:
            self._reporter.report_failure(str(error))
            return
        text = "; ".join(filter(None, (self.blocked, forward)))
        self._reporter.report_fault("firewall", text)
        self._outages.update({"of this node": text} if text else {})

    def _node_cases(self, desired: Desired) -> Iterator[_Case]:
        """What the overlay and the probes need of input and output."""
        health, uplink, own = self._settings.health, desired.uplink, desired.underlay
        ports = {"VXLAN": self._settings.vxlan.port} if desired.device else {}
        ports |= {"probes": health.port} if health else {}
        addresses = (desired.nodes[name].address(own.version) for name in desired.peers)
        peer = next((address for address in addresses if address is not None), None)
        if peer is None:
            return
        for what, port in ports.items():
            name = f"{what} (UDP port {port})"
            yield f"{name} from peers", Flow(peer, own, _UDP, port, uplink), (PREROUTING, INPUT)
            yield f"{name} to peers", Flow(own, peer, _UDP, port, "", uplink), (OUTPUT,)

    def _pod_cases(self, desired: Desired) -> Iterator[_Case]:
        """What pods need of the forwarding path, by family."""
        conflist, hooks = self._settings.conflist, (PREROUTING, FORWARD)
        pods = {"bridge": DEFAULT_BRIDGE, "ptp": _POD_LINK}[conflist.mode] if conflist else ""
        for prefix in desired.pod_cidrs:
            route = _route(desired, prefix.version)
            if route:
                here, there = any_pod(prefix), any_pod(route.dst)
                out = Flow(here, there, _TCP, _ANY_PORT, pods, route.link)
                back = Flow(there, here, _TCP, _ANY_PORT, route.link, pods)
                yield "what pods send to other nodes", out, hooks
                yield "what other nodes' pods send to pods here", back, hooks


def _first_drop(rules: ForeignRules, cases: Iterable[_Case]) -> str:
    for what, flow, hooks in cases:
        where = rules.find_drop(flow, *hooks)
        if where:
            return f"this node's own firewall drops {what}: {where}: accept it there"
    return ""


def _route(desired: Desired, version: int) -> Route | None:
    """A route to pods of any other node."""
    entries = (entry for entries in desired.peers.values() for entry in entries)
    routes = (entry for entry in entries if isinstance(entry, Route))
    return next((route for route in routes if route.dst.version == version), None)
