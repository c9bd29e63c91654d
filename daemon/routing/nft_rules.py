"""podwire's nftables rules, kept as desired: what others remove comes back, and what the cluster's
pods send to each other is not masqueraded."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_network
from typing import TypeVar

from cni_plugin.rule_repair import TABLE_MISSING, MissingRule, find_missing_rules, repair_rules
from daemon.config.schema import ENCAPSULATING, Settings
from daemon.model import Desired
from daemon.prefix_set import Block
from daemon.routing.authors import describe_event, is_own
from daemon.routing.node_side import YOUNG
from daemon.routing.reporter import Reporter
from ipam.errors import StoreBusy
from ipam.store import READ_PATIENCE
from kernel.describe import describe
from kernel.diff import Change, Noun
from kernel.errors import KernelError
from kernel.model import Element, IPAddress
from kernel.netlink.monitor import Event, RuleChange
from kernel.nftables.masquerade import NETWORK_SETS, cluster_elements, ensure_elements
from kernel.nftables.port_mappings import exclusion_elements, forget_reserved, reserved_elements
from kernel.nftables.ruleset import ATTACHMENT_SETS, NODE_SETS
from kernel.nftables.table import TABLE

T = TypeVar("T")

_SHARED = frozenset(a_set.name for a_set in (*NODE_SETS, *NETWORK_SETS))
_PODS = frozenset(a_set.name for a_set in ATTACHMENT_SETS)
_FILTERS = frozenset({"filter", "firewalld"})
_FILTER_CHAINS = frozenset({"FORWARD", "CNI-FORWARD"})
"""Where the acceptance of pods' addresses is (`kernel/iptables.py`, `kernel/firewalld.py`)."""
_NAME = "nftables rules"
_NAMED = 8
"""Differences that are described; of more than these, the number is given."""
_BUSY_GAP = 1.0
GRACE = 0.3
"""Seconds for which something must be missing to be repaired: a DEL in flight is over then."""


class NftRules:
    """Reconciles the tables, what all pods share, and what each pod has in the sets."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._data_dir, self._reporter = settings.data_dir, reporter
        self._settings = settings
        self._planned: tuple[tuple[Block, ...], frozenset[IPAddress]] | None = None
        self._elements: frozenset[Element] = frozenset()
        self._tables_due, self._cluster_due, self._cause = True, False, ""
        self._busy_until = self._compare_at = 0.0
        self._suspects: frozenset[MissingRule] = frozenset()
        self._created: dict[int, float] = {}

    @property
    def is_due(self) -> bool:
        """Whether they must be compared."""
        return self._tables_due or self._cluster_due

    def plan(self, desired: Desired) -> bool:
        """Note the addresses of all pods and of Services; whether the plan changed them.

        If so, rules come before routes: packets that a new route carries would be masqueraded for
        as long as their connection lasts.
        """
        if (desired.cluster, desired.services) != self._planned:
            self._planned = desired.cluster, desired.services
            excluded = excluded_elements(self._settings, desired.services)
            self._elements = excluded | planned_elements(desired)
            self._cluster_due = True
        return self._cluster_due

    def receive(self, change: RuleChange, event: Event) -> None:
        """Take the event of a rule, a set or a member in."""
        if change.table != TABLE:
            matters = _concerns_acceptance(change, event)
        elif change.what == "element":
            # podwire's executable adds the members of pods that come.
            matters = change.name in _SHARED or (event.deleted and change.name in _PODS)
        else:
            matters = event.deleted or change.what == "rule"
        if matters and not is_own(event.port):
            self.resync(describe_event("changed", event))

    def receive_link(self, index: int, *, deleted: bool) -> None:
        """Take the event of a link in: an ADD may be in flight for one that is new."""
        if deleted:
            self._created.pop(index, None)
        else:
            self._created.setdefault(index, time.monotonic())

    def resync(self, cause: str) -> None:
        """Compare everything, for what the cause may have changed."""
        self._tables_due, self._cause = True, cause

    def reconcile(self, desired: Desired) -> float | None:
        """Bring back what is missing; seconds until that may be. Raises KernelError, IpamError."""
        self.plan(desired)
        if not self.is_due:
            return None
        now = time.monotonic()
        wait = max(self._reporter.pause_before(_NAME), self._busy_until - now)
        if wait > 0:
            return wait
        compares = self._tables_due and now >= self._compare_at
        if not compares and not self._cluster_due:
            return self._compare_at - now
        changes = [*(self._repair_tables() if compares else ())]
        refilled = self._fill_cluster()
        if not self._cluster_due:
            changes += refilled
        self._cluster_due = False
        if changes:
            self._report(describe_changes(changes), " ".join(map(str, desired.cluster)))
        if compares:
            return self._next_comparison()
        return self._compare_at - now if self._tables_due else None

    def _next_comparison(self) -> float | None:
        if self._suspects:
            return GRACE
        self._tables_due, self._cause = False, ""
        return None

    def _repair_tables(self) -> Sequence[Change[Noun]]:
        """Bring back what has been missing for long enough; what was."""
        found = self._with_store(find_missing_rules)
        certain = {rule for rule in found if rule == TABLE_MISSING or self._is_damage(rule)}
        changes = self._with_store(partial(repair_rules, missing=certain)) if certain else ()
        self._suspects = frozenset() if TABLE_MISSING in certain else found - certain
        self._compare_at = time.monotonic() + GRACE
        return changes

    def _is_damage(self, rule: MissingRule) -> bool:
        _what, link = rule
        age = time.monotonic() - self._created.get(link, -YOUNG)
        return rule in self._suspects and age >= YOUNG

    def _report(self, before: str, after: str) -> None:
        if self._cause:
            self._reporter.report_repair(_NAME, _NAME, self._cause, before, after)
        else:
            self._reporter.report_change("added", _NAME, "the plan", before, after)

    def _fill_cluster(self) -> Sequence[Change[Noun]]:
        try:
            changes = ensure_elements(self._elements, NODE_SETS)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            self._with_store(partial(repair_rules, missing={TABLE_MISSING}))
            changes = ensure_elements(self._elements, NODE_SETS)
        forget_reserved(change.desired for change in changes if change.desired is not None)
        return changes

    def _with_store(self, act: Callable[..., T]) -> T:
        """Do what needs the store; one that is locked for long is not tried again for a while."""
        try:
            return act(self._data_dir, patience=READ_PATIENCE)
        except StoreBusy:
            self._busy_until = time.monotonic() + _BUSY_GAP
            raise


def excluded_elements(settings: Settings, services: Iterable[IPAddress] = ()) -> frozenset[Element]:
    """What the node's sets have of its settings and of Services: what host ports do not capture."""
    prefixes = (*settings.host_ports.exclude, *map(ip_network, services))
    excluded = exclusion_elements(prefixes)
    return excluded | reserved_elements(_own_ports(settings))


def planned_elements(desired: Desired) -> frozenset[Element]:
    """What they have of a plan: the addresses of all pods, between which nothing is masqueraded."""
    return cluster_elements(block.ends for block in desired.cluster)


def _own_ports(settings: Settings) -> Iterator[tuple[str, int]]:
    """The daemon's ports, which no pod may have as a host port."""
    if settings.backend in ENCAPSULATING:
        yield "udp", settings.vxlan.port
    if settings.health:
        yield "udp", settings.health.port
    if settings.metrics:
        yield "tcp", settings.metrics.listen[1]


def _concerns_acceptance(change: RuleChange, event: Event) -> bool:
    """Whether a filter of another program may not accept pods' packets any more."""
    if change.what == "table":
        return change.table in _FILTERS
    return event.deleted and change.table == "filter" and change.name in _FILTER_CHAINS


def describe_changes(changes: Sequence[Change[Noun]]) -> str:
    """What differed, for the journal."""
    sentences = [describe(change) for change in changes[:_NAMED]]
    more = [f"{len(changes) - _NAMED} more differed"] if len(changes) > _NAMED else []
    return "; ".join([*sentences, *more])
