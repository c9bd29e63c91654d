"""What podwire must reach, against what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.empty_call import BACK_TO_BACK, CASE, SPACED
from tests.bench.kubernetes.arrival import MEMORY as SOURCE_MEMORY
from tests.bench.kubernetes.arrival import arrived
from tests.bench.kubernetes.quiet import CHANGES, EVENTS, KUBERNETES, received
from tests.bench.kubernetes.restarts import CURRENT, LISTS, case_of
from tests.bench.kubernetes.restarts import FEW as FEW_DAEMONS
from tests.bench.networks import (
    BRIDGE_MASQ,
    BRIDGE_PLAIN,
    NETWORKS,
    PTP_DUAL,
    PTP_MASQ,
    PTP_PLAIN,
    Network,
)
from tests.bench.policy import names
from tests.bench.policy.names import POLICY
from tests.bench.policy.section import CHANGE, NONE, established
from tests.bench.policy.section import FEW as POLICY_FEW
from tests.bench.policy.section import MANY as POLICY_MANY
from tests.bench.policy.section import connecting as connects
from tests.bench.policy.section import memory as memory_of
from tests.bench.ports.lineup import PORTS_NETWORK
from tests.bench.ports.mapped import MAPPINGS, PORTS, connecting
from tests.bench.results import DROP_IN, FLOOR, PEER, PODWIRE, STANDALONE, Figure, Results
from tests.bench.routing.heal import FEW, HEAL, MANY
from tests.bench.routing.health import BUDGET, HEALTH, PROBES
from tests.bench.routing.health import CPU as HEALTH_CPU
from tests.bench.routing.overlay import OVERLAY, PATHS, ROUND_TRIPS, THROUGHPUTS
from tests.bench.routing.peers import APPLIED, EDITED, IDLE_CPU, OTHERS, ROUTING
from tests.bench.routing.peers import MEMORY as PEERS_MEMORY
from tests.bench.routing.restart import KINDS, LOST, RESTART, WITHDRAWN
from tests.bench.sandboxes import RUN, SANDBOX, WITHOUT, with_network
from tests.bench.sections import AFTER, BURST, GROWTH, IDLE, LATENCY, MEMORY, growth_case
from tests.bench.sizes import BURST_PODS, LEVELS
from tests.bench.stats import ratio

Measure = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """A limit. unit: empty for a ratio, and for a number of things.

    must: whether missing it is a failure, or only told. at_least: whether less is worse.
    """

    section: str
    what: str
    limit: float
    measure: Measure
    unit: str = ""
    must: bool = True
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and its figure; None where it was not measured."""

    target: Target
    value: float | None

    @property
    def reached(self) -> bool:
        if self.value is None:
            return False
        limit = self.target.limit
        return self.value >= limit if self.target.at_least else self.value <= limit


def judge(results: Results, sections: frozenset[str]) -> list[Verdict]:
    """All targets of the sections that were run."""
    return [Verdict(t, t.measure(results)) for t in TARGETS if t.section in sections]


def _latency(what: str, *networks: Network) -> Measure:
    """The highest ratio to the reference plugin of some networks."""
    figures = [Figure(LATENCY, network.case, what) for network in networks]
    return lambda results: results.worst_ratio(figures)


def _burst(verb: str, network: Network) -> Measure:
    figure = Figure(BURST, network.case, f"{BURST_PODS} {verb}s")
    return lambda results: results.ratio(figure)


def _above_floor(what: str) -> Measure:
    """What an empty call takes longer than with the smallest server."""
    figure = Figure(LATENCY, CASE, what)

    def measure(results: Results) -> float | None:
        ours, floor = results.median(figure, PODWIRE), results.median(figure, FLOOR)
        return None if ours is None or floor is None else ours - floor

    return measure


def _sandbox(results: Results) -> float | None:
    ours, without = results.median(with_network(RUN), PODWIRE), results.median(WITHOUT, FLOOR)
    return None if ours is None or without is None else ours - without


def _growth(results: Results) -> float | None:
    full, empty = (Figure(GROWTH, growth_case(level), "ADD") for level in (LEVELS[-1], LEVELS[0]))
    return ratio(results.median(full, PODWIRE), results.median(empty, PODWIRE))


def _standalone(results: Results) -> float | None:
    figure = Figure(LATENCY, BRIDGE_PLAIN.case, "ADD")
    alone = results.median(figure, STANDALONE)
    # Without a daemon installed, podwire is the standalone path.
    no_daemon = results.median(IDLE, PODWIRE) is None
    return results.median(figure, PODWIRE) if alone is None and no_daemon else alone


def _after_operations(results: Results) -> float | None:
    """After as many as were made; a quick run makes fewer, and its figure says so."""
    return results.highest(f for f in results.figures(MEMORY) if f.what.startswith(AFTER))


def _median(figure: Figure) -> Measure:
    return lambda results: results.median(figure, PODWIRE)


def _highest(*figures: Figure) -> Measure:
    return lambda results: results.highest(figures)


def _of_restarts(what: str) -> Measure:
    return _highest(*(Figure(RESTART, kind, what, "") for kind in KINDS))


def _slowest(case: str) -> Measure:
    """Of all kinds of damage."""
    return lambda results: results.highest(f for f in results.figures(HEAL) if f.case == case)


def _of_source(what: str, section: str = KUBERNETES, *, p99: bool = False) -> Measure:
    """Of the Kubernetes source, whichever API it was measured on."""

    def measure(results: Results) -> float | None:
        found = (s.get(PODWIRE) for f, s in results if f.section == section and f.what == what)
        return next((s.p99 if p99 else s.median for s in found if s), None)

    return measure


def _of_starts(what: str, *, few: bool) -> Measure:
    """The highest of daemons that start at once and know nothing, a few or many."""
    start = case_of(FEW_DAEMONS, known=False)

    def measure(results: Results) -> float | None:
        return results.highest(
            f
            for f in results.figures(KUBERNETES)
            if f.what == what and "nothing known" in f.case and f.case.startswith(start) == few
        )

    return measure


def _with_ports(what: str, contender: str) -> Measure:
    """A contender's ratio to the reference's chain of plugins."""
    figure = Figure(PORTS, PORTS_NETWORK.case, what)
    return lambda results: ratio(results.median(figure, contender), results.median(figure, PEER))


def _mapped_growth(results: Results) -> float | None:
    most, least = (connecting(count) for count in (MAPPINGS[-1], MAPPINGS[0]))
    return ratio(results.median(most, PODWIRE), results.median(least, PODWIRE))


def _policy_growth(what: str) -> Measure:
    def measure(results: Results) -> float | None:
        most, least = (connects(f"{count:,} {what}") for count in (POLICY_MANY, POLICY_FEW))
        return ratio(results.median(most, PODWIRE), results.median(least, PODWIRE))

    return measure


def _policy_throughput(results: Results) -> float | None:
    none = results.median(established(NONE), PODWIRE)
    cases = (f"{n:,} {what}" for n in (POLICY_FEW, POLICY_MANY) for what in ("policies", "peers"))
    found = [ratio(results.median(established(case), PODWIRE), none) for case in cases]
    return min((each for each in found if each is not None), default=None)


def _policy_memory(results: Results) -> float | None:
    found = [results.median(memory_of(case), PODWIRE) for case in (NONE, f"{POLICY_MANY:,} peers")]
    return None if None in found else found[1] - found[0]  # type: ignore[operator]


def _received_ratio(what: str) -> Measure:
    """What a node receives for its policies, against a watch of all pods."""
    return lambda results: results.worst_ratio(f for f in results.figures(POLICY) if f.what == what)


def _cluster_memory(results: Results) -> float | None:
    found = [
        _of_source(names.memory(what), POLICY)(results) for what in (names.ALL, names.UNLIMITED)
    ]
    return None if None in found else found[0] - found[1]  # type: ignore[operator]


def _selected_add(results: Results) -> float | None:
    """What an ADD takes longer where policies select the pod."""
    found = [_of_source(what, POLICY)(results) for what in (names.SELECTED, names.FREE)]
    return None if None in found else found[0] - found[1]  # type: ignore[operator]


JOINS, LEAVES, MOVES = CHANGES

TARGETS = (
    Target(SANDBOX, "RunPodSandbox, above a pod with the host's network", 5, _sandbox, "ms",
           must=False),
    Target(LATENCY, "empty call, above the smallest server", 0.15, _above_floor(BACK_TO_BACK),
           "ms"),
    Target(LATENCY, "empty call after 30 ms, above the smallest server", 0.25,
           _above_floor(SPACED), "ms"),
    Target(LATENCY, "ADD bridge", 0.25, _latency("ADD", BRIDGE_PLAIN)),
    Target(LATENCY, "ADD bridge, ptp, ipMasq (higher)", 0.12,
           _latency("ADD", BRIDGE_MASQ, PTP_MASQ)),
    Target(LATENCY, "ADD ptp dual stack", 0.01, _latency("ADD", PTP_DUAL)),
    Target(LATENCY, "CPU per ADD (highest of all networks)", 0.25,
           _latency("ADD CPU", *NETWORKS)),
    Target(LATENCY, "DEL without ipMasq (highest)", 1.0,
           _latency("DEL", BRIDGE_PLAIN, PTP_PLAIN, PTP_DUAL)),
    Target(LATENCY, "DEL with ipMasq (higher)", 0.4, _latency("DEL", BRIDGE_MASQ, PTP_MASQ)),
    Target(BURST, "burst of ADDs", 0.25, _burst("ADD", BRIDGE_PLAIN)),
    Target(BURST, "burst of ADDs, ipMasq", 0.25, _burst("ADD", BRIDGE_MASQ)),
    Target(BURST, "burst of DELs", 0.3, _burst("DEL", BRIDGE_PLAIN)),
    Target(BURST, "burst of DELs, ipMasq", 0.05, _burst("DEL", BRIDGE_MASQ)),
    Target(GROWTH, "podwire's ADD at 30,000 allocations against 0", 1.3, _growth),
    Target(PORTS, "ADD with ports, ipMasq, bandwidth", 0.08, _with_ports("ADD", PODWIRE)),
    Target(PORTS, "the same by the drop-in names", 0.2, _with_ports("ADD", DROP_IN)),
    Target(PORTS, "burst of DELs with ports", 0.05, _with_ports(f"{BURST_PODS} DELs", PODWIRE)),
    Target(PORTS, "new connection at 10,000 mappings against 10", 1.1, _mapped_growth),
    *(
        Target(POLICY, f"new connection at {POLICY_MANY:,} {what} against {POLICY_FEW}", 1.1,
               _policy_growth(what))
        for what in ("policies", "peers")
    ),
    Target(POLICY, "throughput of an established connection, against no policy (worst)", 0.97,
           _policy_throughput, at_least=True),
    Target(POLICY, f"podwired at {POLICY_MANY:,} peers, beyond that without policy", 20,
           _policy_memory, "MB"),
    Target(POLICY, "a label changes: in the kernel (slowest)", 100,
           _highest(CHANGE), "ms"),
    Target(POLICY, "events that a node receives, against a watch of all pods", 0.01,
           _received_ratio(names.EVENTS)),
    Target(POLICY, "bytes that a node receives, against a watch of all pods", 0.01,
           _received_ratio(names.BYTES)),
    Target(POLICY, "a label is written: in the kernel (p99)", 100,
           _of_source(names.LABEL, POLICY, p99=True), "ms"),
    Target(POLICY, "a policy is written: in the kernel (p99)", 100,
           _of_source(names.WRITTEN, POLICY, p99=True), "ms"),
    Target(POLICY, "ADD of a pod that policies select, beyond that of another", 0.5,
           _selected_add, "ms"),
    Target(POLICY, "podwired, 100 pods a second go and come", 20,
           _of_source(names.CHURNED, POLICY), "% of a core"),
    Target(POLICY, "podwired with all policies and peers, beyond that without", 20,
           _cluster_memory, "MB"),
    Target(LATENCY, "standalone ADD bridge", 120, _standalone, "ms", must=False),
    Target(MEMORY, "podwired, idle", 55, _median(IDLE), "MB"),
    Target(MEMORY, "podwired, after the operations", 55, _after_operations, "MB"),
    Target(ROUTING, "all peers from nothing, against the floor", 3.0,
           lambda results: results.ratio(APPLIED)),
    Target(ROUTING, "podwired with all peers", 105, _median(PEERS_MEMORY), "MB"),
    Target(ROUTING, "one peer's change (median)", 10, _median(EDITED), "ms"),
    Target(ROUTING, "one peer's change (slowest)", 10, _highest(EDITED), "ms", must=False),
    Target(ROUTING, "entries of other peers touched by it", 0, _highest(OTHERS)),
    Target(ROUTING, "podwired with all peers, idle", 0.5, _median(IDLE_CPU), "% of a core"),
    Target(RESTART, "packets lost by a restart (most)", 0, _of_restarts(LOST)),
    Target(RESTART, "entries withdrawn by a restart (most)", 0, _of_restarts(WITHDRAWN)),
    Target(HEAL, f"damage healed, {FEW} (slowest of all kinds)", 1000, _slowest(FEW), "ms"),
    Target(HEAL, f"damage healed, {MANY} (slowest)", 1000, _slowest(MANY), "ms", must=False),
    Target(OVERLAY, "throughput, against an overlay by hand (worst)", 0.97,
           lambda results: results.least_ratio(THROUGHPUTS), at_least=True),
    Target(OVERLAY, "throughput of one thread, likewise (worst)", 0.97,
           lambda results: results.least_ratio(PATHS), at_least=True),
    Target(OVERLAY, "round trip, against an overlay by hand (worst)", 1.05,
           lambda results: results.worst_ratio(ROUND_TRIPS)),
    Target(HEALTH, "podwired with all peers that probe and are probed, idle", 0.5,
           _median(HEALTH_CPU), "% of a core"),
    Target(HEALTH, "probes sent in a second, whatever the number of peers", 1.05 * BUDGET,
           _median(PROBES)),
    Target(KUBERNETES, "events received while nothing changes", 0, _of_source(EVENTS)),
    Target(KUBERNETES, f"{JOINS}: received by each daemon", 1000, _of_source(received(JOINS)),
           "bytes"),
    Target(KUBERNETES, f"{LEAVES}: received by each daemon", 1000, _of_source(received(LEAVES)),
           "bytes"),
    Target(KUBERNETES, f"{MOVES}: received by each daemon", 1000, _of_source(received(MOVES)),
           "bytes"),
    Target(KUBERNETES, f"{JOINS}: until it is in the kernel (p99)", 50,
           _of_source(arrived(JOINS), p99=True), "ms"),
    Target(KUBERNETES, f"{LEAVES}: until it is in the kernel (p99)", 50,
           _of_source(arrived(LEAVES), p99=True), "ms"),
    Target(KUBERNETES, f"{MOVES}: until it is in the kernel (p99)", 50,
           _of_source(arrived(MOVES), p99=True), "ms"),
    Target(KUBERNETES, "three daemons that know nothing: until each is current (slowest)", 1.0,
           _of_starts(CURRENT, few=True), "s"),
    Target(KUBERNETES, "many that know nothing: lists in a second (most, about 100)", 130,
           _of_starts(LISTS, few=False)),
    Target(KUBERNETES, "podwired with all nodes", 95, _of_source(SOURCE_MEMORY), "MB"),
)  # fmt: skip
