"""Reads all values of the metrics at each scrape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from daemon.cni_server.call_counters import CallCounters, VerbCounts
from daemon.metrics import families as f
from daemon.metrics.families import Family
from daemon.model import Desired, Histogram, Snapshot, SourceActivity
from daemon.policy.model import PolicyCounts
from daemon.probes.report import PeerHealth, Reason, State
from daemon.routing.counters import Counts, Seen
from daemon.status import PARTS, NodeStatus
from ipam.ranges import build_range, gateways_of, size_of
from ipam.usage import Usage
from kernel.model import IPNetwork

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.journal import Journal
    from daemon.policy.controller import PolicyController
    from daemon.probes.prober import ProbeCounts, Prober

Labels = tuple[str, ...]
Values = dict[Family, dict[Labels, float | Histogram]]

FAMILIES = {4: "ipv4", 6: "ipv6"}
_STORE_SECONDS = 0.5
"""How long a scrape waits for a store that another process has locked."""
_EVERY_CODE = ("ADD", "DEL")
"""Verbs that show each code from the start: a series that begins with its first error has no
increase (https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics)."""
_TIMED = ("ADD", "DEL", "CHECK", "GC", "STATUS")
_UNREACHABLE = frozenset({Reason.OVERLAY_BLOCKED, Reason.UNDERLAY_DOWN, Reason.ONE_WAY})
"""Reasons that cut off pods. A daemon that is gone leaves its routes, and a small path MTU lets
small packets pass."""

_MEASURED = frozenset({Reason.NONE, Reason.MTU})
"""Reasons with which the path MTU is known: it is less than the pods' with the latter alone."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values come from.

    prober: None where peers are not probed. policy: None where none is enforced.
    """

    settings: Settings
    calls: CallCounters
    counts: Counts
    journal: Journal
    prober: Prober | None = None
    policy: PolicyController | None = None


class Collector:
    """Reads in the network namespace of the calling thread; one thread at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._shares = Shares()
        self._errors = {"dns": 0, "ipam": 0}

    def read(self) -> Values:
        """All values. A part that cannot be read is left out, and counted."""
        now, sources = time.monotonic(), self._sources
        values = read_calls(sources.calls.read())
        values |= read_work(sources.counts, sources.journal, now)
        values |= self._read_info() | _read_processes(sources.calls)
        policy = sources.policy
        values |= read_policy(
            policy.counts if policy else PolicyCounts(),
            policy.activity if policy else SourceActivity(),
        )
        seen = sources.counts.seen
        if seen is not None:
            values |= self._read_seen(seen, now)
        values |= self._attempt("ipam", lambda: self._read_usage(seen))
        values |= self._attempt("dns", _read_dns)
        return values | {f.READ_ERRORS: {(part,): n for part, n in self._errors.items()}}

    def _attempt(self, part: str, read: Callable[[], Values]) -> Values:
        try:
            return read()
        except Exception:  # an error of one part must not hide the others
            self._errors[part] += 1
            return {}

    def _read_info(self) -> Values:
        settings = self._sources.settings
        labels = read_version(), settings.node, settings.backend, settings.source.kind
        return {f.INFO: {labels: 1.0}}

    def _read_seen(self, seen: Seen, now: float) -> Values:
        values, prober = read_status(seen.status) | read_source(seen, now), self._sources.prober
        peers = prober.peers() if prober else ()
        if prober:
            values |= read_peers(peers) | read_probes(prober.counts, prober.terminated)
        if seen.snapshot:
            unreachable = find_unreachable(seen.desired, peers)
            values |= self._shares.read(seen.snapshot, self._sources.settings.node, unreachable)
        return values

    def _read_usage(self, seen: Seen | None) -> Values:
        from ipam.store import read_store
        from ipam.usage import read_usage as usage_of

        settings = self._sources.settings
        network = settings.conflist.name if settings.conflist else ""
        prefixes = seen.desired.pod_cidrs if seen and seen.desired else ()
        # Opened for each scrape: an open store keeps a cache of pages.
        found = read_store(settings.data_dir, usage_of, _STORE_SECONDS)
        return read_usage(found or (), network, prefixes)


def read_calls(calls: Mapping[str, VerbCounts]) -> Values:
    """The CNI calls of all processes."""
    codes: dict[Labels, float | Histogram] = {}
    seconds: dict[Labels, float | Histogram] = {}
    for verb, counts in calls.items():
        always = {*counts.codes} if verb in _EVERY_CODE else {"0"}
        codes |= {(verb, c): n for c, n in counts.codes.items() if n or c in always}
        if verb in _TIMED:
            seconds |= {(verb, "success"): counts.done, (verb, "error"): counts.failed}
    return {
        f.CALLS: codes,
        f.CALL_SECONDS: seconds,
        f.CALLS_IN_FLIGHT: {(verb,): counts.in_flight for verb, counts in calls.items()},
        f.PENDING: {(): calls["ADD"].in_flight},
    }


def _read_processes(calls: CallCounters) -> Values:
    return {f.CNI_PROCESSES: {("serving",): len(calls.rows) - calls.dead, ("dead",): calls.dead}}


def _read_dns() -> Values:
    from kernel.nftables.dns_counters import count_dns

    counters = count_dns()
    if counters is None:
        return {}
    return {f.DNS_QUERIES: {(): counters.queries}, f.DNS_ANSWERS: {(): counters.answers}}


@cache
def read_version() -> str:
    """The version of podwire that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("podwire")
    except PackageNotFoundError:
        return "unknown"


def read_work(counts: Counts, journal: Journal, now: float) -> Values:
    """What the routing loop did. now: seconds of the monotonic clock."""
    return {
        f.RECONCILE_SECONDS: {(): counts.iterations},
        f.ERRORS: {(): counts.errors},
        f.RESTARTS: {(): counts.restarts},
        f.ITERATION_AGE: {(): now - counts.last_iteration},
        f.DRIFT_DETECTED: _by_name(counts.drift_detected),
        f.DRIFT_REPAIRED: _by_name(counts.drift_repaired),
        f.JOURNAL_RECORDS: _by_name(journal.written),
        f.JOURNAL_LOST: {(): journal.unwritten},
        f.TABLE_ENTRIES: {(each.name,): each.used for each in counts.levels},
        f.TABLE_SIZE: {(each.name,): each.size for each in counts.levels},
    }


def _by_name(numbers: Mapping[str, int]) -> dict[Labels, float | Histogram]:
    return {(name,): number for name, number in numbers.items()}


def read_status(status: NodeStatus) -> Values:
    """The state of this node's routing."""
    probes = status.health.fault if status.health else ""
    faults = {**dict.fromkeys(PARTS, ""), **status.faults, "node": status.fault, "probes": probes}
    return {
        f.READY: {(): float(not status.fault)},
        f.FAULT: {(part,): float(bool(text)) for part, text in faults.items()},
        f.PEERS: {(): status.peers},
        f.ENTRIES: {(): status.wanted},
        f.OUT_OF_SYNC: {(): status.wanted - status.in_sync},
        f.ATTACHMENTS: {(): status.attachments},
        f.ATTACHMENTS_OUT_OF_SYNC: {(): status.attachments - status.attachments_in_sync},
        f.REFUSED: {(): len(status.refused)},
        f.CONFLICTING: {(): len(status.tolerated)},
        f.MTU: {(): status.mtu},
        f.DROPPED_PACKETS: _by_name(status.dropped),
    }


def read_source(seen: Seen, now: float) -> Values:
    """What the cluster source sent. now: seconds of the monotonic clock."""
    values: Values = {f.NODES: {(): len(seen.snapshot.nodes) if seen.snapshot else 0}}
    if seen.activity is None:
        return values
    return values | {
        f.LAG: {
            (): now - seen.activity.last_received if seen.activity.last_received else float("inf")
        },
        f.EVENTS: {(): seen.activity.events},
        f.RECEIVED: {(): seen.activity.bytes},
        f.SNAPSHOTS: {(): seen.activity.snapshots},
    }


def read_usage(usages: Iterable[Usage], network: str, prefixes: Sequence[IPNetwork]) -> Values:
    """Addresses by network. network, prefixes: of this daemon's own CNI configuration."""
    known = {(u.network, u.version): u for u in usages}
    own = {(network, v): n for v, n in _sizes(prefixes).items()} if network else {}
    values: Values = {family: {} for family in (f.IN_USE, f.SIZE, f.RESTING, f.OLDEST)}
    for key in sorted({*known, *own}):
        usage, labels = known.get(key) or Usage(*key), (key[0], FAMILIES[key[1]])
        values[f.IN_USE][labels] = usage.allocated
        values[f.SIZE][labels] = own.get(key, usage.size)
        values[f.RESTING][labels] = usage.resting
        values[f.OLDEST][labels] = usage.oldest or 0.0
    return values


def _sizes(prefixes: Iterable[IPNetwork]) -> Mapping[int, int]:
    """Addresses for pods by family, with the prefixes as ranges of the CNI configuration."""
    sizes: Counter[int] = Counter()
    for prefix in prefixes:
        ranges = (build_range(prefix),)
        sizes[prefix.version] += size_of(ranges, gateways_of([ranges]))
    return sizes


def read_probes(counts: ProbeCounts, terminated: int) -> Values:
    """Counters of the probes. terminated: connections that ended."""
    return {
        f.TERMINATED: {(): terminated},
        f.PROBES_SENT: {(): counts.sent},
        f.PROBES_ANSWERED: {(): counts.answered},
        f.PROBES_SERVED: {(): counts.served},
        f.PROBES_DROPPED: {(): counts.dropped},
    }


def read_peers(peers: Sequence[PeerHealth]) -> Values:
    """The connections to peers."""
    states = Counter(peer.state for peer in peers)
    reasons = Counter(peer.reason for peer in peers if peer.state is State.FAILED)
    established = [p for p in peers if p.state is State.ESTABLISHED]
    times = sorted(peer.rtt for peer in established if peer.rtt is not None)
    sizes = [p.path_mtu for p in peers if p.path_mtu and p.reason in _MEASURED]
    values: Values = {
        f.CONNECTIONS: {(str(state),): states[state] for state in State},
        f.DEGRADED: {(str(reason),): reasons[reason] for reason in Reason if reason},
    }
    if times:
        values |= {f.RTT_MEDIAN: {(): times[len(times) // 2]}, f.RTT_MAX: {(): times[-1]}}
    if sizes:
        values[f.PATH_MTU] = {(): min(sizes)}
    return values


def find_unreachable(desired: Desired | None, peers: Iterable[PeerHealth]) -> frozenset[str]:
    """Peers without a path to them, and those that failed for a reason that cuts off pods."""
    pathless = desired.pathless if desired else ()
    cut_off = (p.name for p in peers if p.reason in _UNREACHABLE and p.state is State.FAILED)
    return frozenset((*pathless, *cut_off))


class Shares:
    """The pod addresses that peers own; summed up once for each snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._totals: Mapping[int, int] = {}

    def read(self, snapshot: Snapshot, me: str, unreachable: frozenset[str]) -> Values:
        """How many unreachable peers own addresses, and their share of all addresses."""
        if snapshot is not self._snapshot:
            self._snapshot, self._totals = snapshot, _owned(snapshot, me, None)
        owners = [n.name for n in snapshot.nodes if n.name in unreachable and n.pod_cidrs]
        lost = _owned(snapshot, me, unreachable) if owners else {}
        values: Values = {f.UNREACHABLE: {(): len(owners)}, f.UNREACHABLE_SHARE: {}}
        for version, total in self._totals.items():
            values[f.UNREACHABLE_SHARE][FAMILIES[version],] = lost.get(version, 0) / total
        return values


def _owned(snapshot: Snapshot, me: str, names: frozenset[str] | None) -> Mapping[int, int]:
    """Pod addresses of peers by family; of all peers, or of those with these names."""
    sizes: Counter[int] = Counter()
    for node in snapshot.nodes:
        if node.name != me and (names is None or node.name in names):
            for prefix in node.pod_cidrs:
                # num_addresses would keep two more address objects with every prefix.
                sizes[prefix.version] += 1 << (prefix.max_prefixlen - prefix.prefixlen)
    return sizes


def read_policy(counts: PolicyCounts, activity: SourceActivity) -> Values:
    """What is enforced of policies. activity: of their source."""
    return {
        f.POLICIES: {
            ("enforced",): counts.policies - counts.faulty,
            ("faulty",): counts.faulty,
        },
        f.POLICY_PODS: {("limited",): counts.selected, ("closed",): counts.closed},
        f.POLICY_UPDATES: {(): counts.updates},
        f.POLICY_CUT: {(): counts.cut},
        f.POLICY_SECONDS: {(): counts.seconds},
        f.POLICY_EVENTS: {(): activity.events},
        f.POLICY_RECEIVED: {(): activity.bytes},
    }
