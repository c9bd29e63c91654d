"""VXLAN and probes are taken from peers alone: who they are is kept in podwire's nft sets.

Order: a peer is admitted before anything is sent to it, and a port is filtered only once all peers
are. Those that left are dropped from the sets a while after their routes.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Collection
from contextlib import suppress

from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.routing.authors import describe_event, is_own
from daemon.routing.nft_rules import describe_changes
from daemon.routing.reporter import Reporter
from kernel.conntrack import Flow, forget_flows, tracks_connections
from kernel.errors import KernelError
from kernel.model import Element, Route
from kernel.netlink.monitor import Event, RuleChange
from kernel.nftables.peer_filter import (
    PART,
    PROBES_MAX,
    SETS,
    UNTRACKED,
    Dropped,
    admit_peers,
    count_dropped,
    ensure_peer_filter,
    filters_peers,
    node_elements,
    peer_elements,
)
from kernel.nftables.port_mappings import UDP
from kernel.nftables.table import TABLE

RETIRE_SECONDS = 5.0
"""Seconds for which a peer that left, or an address that it gave up, may still send."""
_COUNT_GAP, _LIMITED_SECONDS = 2.0, 10.0
_NAME = "nftables filter of peers"
_NOT_YET = "the filter is yet to be made"
_SETS = frozenset(a_set.name for a_set in SETS)
_CHAINS = frozenset(chain.name for chain in (PART + UNTRACKED).chains)
_UNTRACKED_RULES = frozenset(UNTRACKED.rules.values())


class PeerFilter:
    """Reconciles the filter of this node's ports with the nodes of the plan."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._vxlan = settings, settings.vxlan
        self._probe_port = settings.health.port if settings.health else None
        self._reporter = reporter
        self._planned: Desired | None = None
        self._compare_at, self._cause, self._filters = 0.0, "", False
        self._untracked = False
        self._counts: Dropped | None = None
        self._count_at, self._limited_until = 0.0, 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is yet to be made, or must be compared now."""
        return not self._filters or self._compare_at <= time.monotonic()

    def resync(self, cause: str) -> None:
        """Compare everything, for what the cause may have changed."""
        if self._filters:  # else it is yet to be made
            self._compare_at, self._cause = 0.0, cause

    def tick(self) -> None:
        """Find out whether connections are tracked, which is announced by nothing."""
        if not self._untracked and self._planned and self._planned.device and tracks_connections():
            self._untracked, self._compare_at = True, 0.0

    def receive(self, change: RuleChange, event: Event) -> None:
        """Take the event of a rule, a chain, a set or an element in."""
        if change.table != TABLE or change.family != "inet" or is_own(event.port):
            return
        if (change.what == "table" and event.deleted) or change.name in _SETS | _CHAINS:
            self.resync(describe_event("changed", event))

    def reconcile(self, desired: Desired) -> float | None:
        """Admit new peers, and compare what is due; seconds until more is. Raises KernelError."""
        if self._planned is None:
            # Routes come first: it is made in the next iteration, and until then it is a fault.
            self._admit(desired)
            self._reporter.faults.set("filter", "" if self._filters else _NOT_YET)
            return 0.0
        if self._planned is not desired:
            self._admit(desired)
        wait = max(self._compare_at - time.monotonic(), self._reporter.pause_before(_NAME))
        if wait > 0:
            return None if wait == math.inf else wait
        elements = filter_elements(self._settings, desired)
        changes = ensure_peer_filter(elements, untracked=self._untracked)
        if self._untracked and any(c.desired in _UNTRACKED_RULES for c in changes):
            forget_flows(Flow(version, UDP, self._vxlan.port) for version in (4, 6))
        if changes and self._cause:
            before = describe_changes(changes)
            self._reporter.report_repair(_NAME, _NAME, self._cause, before, "as planned")
        self._compare_at, self._cause, self._filters = math.inf, "", True
        return None

    def _admit(self, desired: Desired) -> None:
        old = self._planned
        if old is None:  # an earlier daemon's filter may be at work
            self._filters = filters_peers()
            elements = filter_elements(self._settings, desired) if self._filters else frozenset()
        else:
            new = {n for n in desired.peers if not _is_same(n, old, desired)}
            elements = _node_elements(self._settings, desired) | _elements(desired, new)
        try:
            admit_peers(elements)
        except KernelError as error:
            if error.errno != errno.ENOENT:  # the table is gone, and nothing is filtered
                raise
        now = time.monotonic()
        if old is None:
            self._compare_at = now
        elif _node_elements(self._settings, old) != _node_elements(self._settings, desired) or any(
            not _is_same(name, old, desired) for name in old.peers
        ):
            self._compare_at = min(self._compare_at, now + RETIRE_SECONDS)
        self._planned = desired

    def count(self) -> dict[str, int]:
        """The packets that were dropped since the table was made, by reason."""
        now = time.monotonic()
        if now >= self._count_at:
            self._count_at = now + _COUNT_GAP
            with suppress(KernelError):  # reconciling reports it
                self._note(count_dropped(), now)
        return (self._counts or Dropped())._asdict()

    def _note(self, counts: Dropped, now: float) -> None:
        # What the first count finds may be of long before this daemon.
        if self._counts and counts.limited > self._counts.limited:
            self._limited_until = now + _LIMITED_SECONDS
        self._counts = counts
        is_limited = now < self._limited_until
        self._reporter.report_fault("limit", describe_limit(self._probe_port) * is_limited)


def describe_limit(port: int | None) -> str:
    """What it means that probes of an address are limited, and what to do."""
    return (
        f"more than {PROBES_MAX} probes a second come from the address of a peer, and the rest is "
        f"dropped: `tcpdump udp port {port}` shows the sender: stop or filter it"
    )


def filter_elements(settings: Settings, desired: Desired) -> frozenset[Element]:
    """All that the sets of the filter should have."""
    return _node_elements(settings, desired) | _elements(desired, desired.peers)


def _node_elements(settings: Settings, desired: Desired) -> frozenset[Element]:
    vxlan_port = settings.vxlan.port if desired.device else None
    probe_port = settings.health.port if settings.health else None
    links = desired.uplink, settings.vxlan.device
    return node_elements(*links, desired.me.addresses, vxlan_port, probe_port)


def _is_same(name: str, one: Desired, other: Desired) -> bool:
    """Whether both plans have the same peer; unchanged ones are the same objects."""
    same = one.peers.get(name) is other.peers.get(name)
    return same and one.nodes.get(name) is other.nodes.get(name)


def _elements(desired: Desired, names: Collection[str]) -> frozenset[Element]:
    """The elements that let these peers send, without this node's own addresses."""
    underlay = {address for name in names for address in desired.nodes[name].addresses}
    pods = (
        entry.dst.network_address
        for name in names
        for entry in desired.peers[name]
        if isinstance(entry, Route)
    )
    return peer_elements(underlay.difference(desired.me.addresses), pods)
