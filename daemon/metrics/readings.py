"""What the families' values are, computed from what was counted; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from daemon.cni_server.call_counters import Histogram, VerbCounts
from daemon.metrics import families as f
from daemon.metrics.families import Family
from daemon.model import Desired, Snapshot
from daemon.probes.states import PeerHealth, Reason, State
from daemon.routing.counters import Counts, Seen
from daemon.status import NodeStatus
from ipam.ranges import build_range, gateways_of, size_of
from ipam.usage import Usage
from kernel.model import IPNetwork

if TYPE_CHECKING:
    from daemon.journal import Journal
    from daemon.probes.prober import Tally

Labels = tuple[str, ...]
Values = dict[Family, dict[Labels, float | Histogram]]

NETWORKS_MAX = 32
"""So many networks have labels of their own."""
FAMILIES = {4: "ipv4", 6: "ipv6"}
_EVERY_CODE = ("ADD", "DEL")
"""Verbs whose errors somebody is called for: a series that begins with its first error has no
increase (https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics)."""
_TIMED = ("ADD", "DEL", "CHECK", "GC", "STATUS")
"""Verbs whose time tells something."""
_CUT_OFF = frozenset({Reason.OVERLAY_BLOCKED, Reason.UNDERLAY_DOWN, Reason.ONE_WAY})
"""Reasons that keep pods apart. A daemon that is gone leaves its routes, and a small MTU lets small
packets pass."""


def read_calls(tally: Mapping[str, VerbCounts]) -> Values:
    """The CNI calls of all processes."""
    codes: dict[Labels, float | Histogram] = {}
    seconds: dict[Labels, float | Histogram] = {}
    for verb, counts in tally.items():
        wanted = {*counts.codes} if verb in _EVERY_CODE else {"0"}
        codes |= {(verb, c): n for c, n in counts.codes.items() if n or c in wanted}
        if verb in _TIMED:
            seconds |= {(verb, "success"): counts.done, (verb, "error"): counts.failed}
    return {
        f.CALLS: codes,
        f.CALL_SECONDS: seconds,
        f.CALLS_UNDER_WAY: {(verb,): counts.under_way for verb, counts in tally.items()},
        f.PENDING: {(): tally["ADD"].under_way},
    }


def read_work(counts: Counts, journal: Journal, now: float) -> Values:
    """The routing half's doings. now: seconds of the monotonic clock."""
    return {
        f.TURN_SECONDS: {(): counts.turns},
        f.ERRORS: {(): counts.errors},
        f.RESTARTS: {(): counts.restarts},
        f.IDLE: {(): now - counts.turned},
        f.FOUND: _by_name(counts.found),
        f.HEALED: _by_name(counts.healed),
        f.JOURNALED: _by_name(journal.written),
        f.UNJOURNALED: {(): journal.unwritten},
    }


def _by_name(numbers: Mapping[str, int]) -> dict[Labels, float | Histogram]:
    return {(name,): number for name, number in numbers.items()}


def read_status(status: NodeStatus) -> Values:
    """The state of this node's routing."""
    parts = {
        "node": status.fault,
        "source": status.source_fault,
        "conflist": status.conflist_fault,
        "journal": status.journal_fault,
        "pods": status.stranded,
        "health": (status.health.fault or status.health.flood) if status.health else "",
    }
    return {
        f.READY: {(): float(not status.fault)},
        f.FAULT: {(part,): float(bool(text)) for part, text in parts.items()},
        f.PEERS: {(): status.peers},
        f.WANTED: {(): status.wanted},
        f.MISSING: {(): status.wanted - status.in_sync},
        f.REFUSED: {(): len(status.refused)},
        f.TOLERATED: {(): len(status.tolerated)},
        f.MTU: {(): status.mtu},
    }


def read_source(seen: Seen, now: float) -> Values:
    """What came from the source. now: seconds of the monotonic clock."""
    values: Values = {f.NODES: {(): len(seen.snapshot.nodes) if seen.snapshot else 0}}
    if seen.news is None:
        return values
    return values | {
        f.LAG: {(): now - seen.news.heard if seen.news.heard else float("inf")},
        f.EVENTS: {(): seen.news.events},
        f.RECEIVED: {(): seen.news.bytes},
        f.SNAPSHOTS: {(): seen.news.snapshots},
    }


def read_usage(usages: Iterable[Usage], network: str, prefixes: Sequence[IPNetwork]) -> Values:
    """Addresses. network: the one that this daemon's CNI configuration is of; prefixes: its."""
    known = {(u.network, u.version): u for u in usages}
    own = {(network, v): n for v, n in _sizes(prefixes).items()} if network else {}
    keys = sorted({*known, *own}, key=lambda key: (key[0] != network, key))
    values: Values = {family: {} for family in (f.HELD, f.SPACE, f.RESTING, f.OLDEST)}
    shown = set(list(dict.fromkeys(name for name, _version in keys))[:NETWORKS_MAX])
    for key in keys:
        if key[0] in shown:
            usage, labels = known.get(key) or Usage(*key), (key[0], FAMILIES[key[1]])
            values[f.HELD][labels] = usage.held
            values[f.SPACE][labels] = own.get(key, usage.size)
            values[f.RESTING][labels] = usage.resting
            values[f.OLDEST][labels] = usage.oldest or 0.0
    return values


def _sizes(prefixes: Iterable[IPNetwork]) -> Mapping[int, int]:
    """How many addresses pods can get, by family, as the CNI configuration has them as ranges."""
    sizes: Counter[int] = Counter()
    for prefix in prefixes:
        ranges = (build_range(prefix),)
        sizes[prefix.version] += size_of(ranges, gateways_of([ranges]))
    return sizes


def read_probes(tally: Tally, terminated: int) -> Values:
    """What the probes did. terminated: connections that ended."""
    return {
        f.TERMINATED: {(): terminated},
        f.PROBES_SENT: {(): tally.sent},
        f.PROBES_ANSWERED: {(): tally.answered},
        f.PROBES_SERVED: {(): tally.served},
        f.PROBES_DROPPED: _by_name(tally.dropped),
    }


def read_peers(peers: Sequence[PeerHealth]) -> Values:
    """The ways to other nodes."""
    states = Counter(peer.state for peer in peers)
    reasons = Counter(peer.reason for peer in peers if peer.state is State.FAILED)
    reached = [p for p in peers if p.state is State.ESTABLISHED]
    times = sorted(peer.rtt for peer in reached if peer.rtt is not None)
    sizes = [peer.path_mtu for peer in reached if peer.path_mtu]
    values: Values = {
        f.CONNECTIONS: {(str(state),): states[state] for state in State},
        f.TROUBLED: {(str(reason),): reasons[reason] for reason in Reason if reason},
    }
    if times:
        values |= {f.RTT_MEDIAN: {(): times[len(times) // 2]}, f.RTT_MAX: {(): times[-1]}}
    if sizes:
        values[f.PATH_MTU] = {(): min(sizes)}
    return values


def find_unreachable(desired: Desired | None, peers: Iterable[PeerHealth]) -> frozenset[str]:
    """Nodes that nothing leads to, or that failed in a way that keeps pods apart."""
    nowhere = [name for name, entries in desired.peers.items() if not entries] if desired else []
    cut_off = (p.name for p in peers if p.reason in _CUT_OFF and p.state is State.FAILED)
    return frozenset((*nowhere, *cut_off))


class Shares:
    """What addresses of pods other nodes own; added up once for each state of the cluster."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._totals: Mapping[int, int] = {}

    def read(self, snapshot: Snapshot, me: str, unreachable: frozenset[str]) -> Values:
        """How many of the unreachable own addresses, and their share of all of them."""
        if snapshot is not self._snapshot:
            self._snapshot, self._totals = snapshot, _owned(snapshot, me, None)
        owners = [n.name for n in snapshot.nodes if n.name in unreachable and n.pod_cidrs]
        lost = _owned(snapshot, me, unreachable) if owners else {}
        values: Values = {f.UNREACHABLE: {(): len(owners)}, f.UNREACHABLE_SHARE: {}}
        for version, total in self._totals.items():
            values[f.UNREACHABLE_SHARE][FAMILIES[version],] = lost.get(version, 0) / total
        return values


def _owned(snapshot: Snapshot, me: str, names: frozenset[str] | None) -> Mapping[int, int]:
    """Addresses of other nodes' pods by family; names: of these nodes alone."""
    sizes: Counter[int] = Counter()
    for node in snapshot.nodes:
        if node.name != me and (names is None or node.name in names):
            for prefix in node.pod_cidrs:
                # Not num_addresses, which keeps two more addresses with every prefix for good.
                sizes[prefix.version] += 1 << (prefix.max_prefixlen - prefix.prefixlen)
    return sizes
