"""The sections of a run."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

from tests.bench.checks import Baseline
from tests.bench.contender import Contender, Plugin
from tests.bench.empty_call import empty_calls
from tests.bench.filling import fill
from tests.bench.kubernetes.quiet import KUBERNETES
from tests.bench.kubernetes.section import kubernetes
from tests.bench.lineup import Entry, Lineup
from tests.bench.networks import BRIDGE_MASQ, BRIDGE_PLAIN, NETWORKS, PTP_DUAL
from tests.bench.policy.names import POLICY
from tests.bench.policy.section import policies
from tests.bench.ports.mapped import PORTS
from tests.bench.ports.section import ports
from tests.bench.results import FLOOR, KINDNET, PEER, PODWIRE, STANDALONE, Figure, Results
from tests.bench.rounds import Rounds, Say, in_turns, in_use, one_burst, takes_part
from tests.bench.routing.heal import HEAL, heal
from tests.bench.routing.health import HEALTH, health
from tests.bench.routing.overlay import OVERLAY, overlay
from tests.bench.routing.peers import ROUTING, routing
from tests.bench.routing.restart import RESTART, restart
from tests.bench.sandboxes import SANDBOX, sandboxes
from tests.bench.sizes import BURST_PODS, LEVELS, Sizes

PLUGINS = (FLOOR, PEER, PODWIRE, STANDALONE, KINDNET)
LATENCY, BURST, GROWTH, MEMORY = "latency", "burst", "growth", "memory"
IDLE = Figure(MEMORY, "podwired", "PSS idle", "MB")
AFTER = "PSS after "
SHIM = Figure(MEMORY, "shim", "size", "bytes")
HARNESS = Figure("harness", "/bin/true", "run")
SETTLE = 1.0
"""Seconds before memory is read."""


def latency(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """ADD and DEL of one pod, on a node that has another; calls that do nothing."""
    say(f"{LATENCY}: empty calls")
    empty_calls(lineup, results, LATENCY, sizes.rounds // 3)
    for network in NETWORKS:
        rounds = sizes.slow_rounds if network == PTP_DUAL else sizes.rounds
        entries = [Entry(c, sizes.seldom if c == STANDALONE else 1) for c in PLUGINS]
        run = Rounds(lineup.world, results, LATENCY, network.case)
        with (
            lineup.contenders(network, *entries) as contenders,
            in_use(lineup.world, contenders) as baselines,
        ):
            for number in range(rounds + 1):
                say(f"{LATENCY}, {network.case}: round {number} of {rounds}")
                for contender in in_turns(contenders, number):
                    if takes_part(contender, number):
                        run.run(contender, baselines[contender], number)


def burst(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """Many ADDs, then many DELs, some at once."""
    for network in (BRIDGE_PLAIN, BRIDGE_MASQ):
        entries = [Entry(label) for label in (FLOOR, PEER, PODWIRE)]
        with (
            lineup.contenders(network, *entries) as contenders,
            in_use(lineup.world, contenders) as baselines,
        ):
            for number in range(sizes.bursts):
                say(f"{BURST}, {network.case}: {number + 1} of {sizes.bursts}")
                for contender in in_turns(contenders, number):
                    one_burst(lineup.world, results, BURST, contender, baselines[contender])


def growth(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """ADD with more and more allocations present; all levels take turns."""
    entries = (Entry(PEER, sizes.seldom), Entry(PODWIRE))
    with ExitStack() as stack:
        turns: list[tuple[Rounds, Contender, Baseline]] = []
        for level in LEVELS:
            say(f"{GROWTH}: preparing {level:,} allocations")
            present = partial(fill, BRIDGE_PLAIN, level)
            made = stack.enter_context(lineup.contenders(BRIDGE_PLAIN, *entries, fill=present))
            baselines = stack.enter_context(in_use(lineup.world, made))
            rounds = Rounds(lineup.world, results, GROWTH, growth_case(level))
            turns += [(rounds, contender, baseline) for contender, baseline in baselines.items()]
        for number in range(sizes.growth_rounds + 1):
            say(f"{GROWTH}: round {number} of {sizes.growth_rounds}")
            for rounds, contender, baseline in in_turns(turns, number):
                if takes_part(contender, number):
                    rounds.run(contender, baseline, number)


def growth_case(level: int) -> str:
    """How a level is called in the results."""
    return f"{level:,} allocations"


def busy(operations: int) -> Figure:
    """The daemon's memory after so many operations, which its name says."""
    return Figure(MEMORY, "podwired", f"{AFTER}{operations:,} operations", "MB")


def memory(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """The daemon's memory before the first call and after many; the executable's size."""
    size = lineup.programs.podwire.stat().st_size
    if lineup.programs.shim:
        results.add(SHIM, PODWIRE, size)
    if lineup.programs.daemon is None:
        return
    with lineup.contenders(BRIDGE_PLAIN, Entry(PODWIRE)) as (contender,):
        assert isinstance(contender, Plugin)
        assert contender.daemon is not None
        time.sleep(SETTLE)
        results.add(IDLE, PODWIRE, contender.daemon.pss())
        with in_use(lineup.world, [contender]) as baselines:
            for done in range(0, sizes.operations, 2 * BURST_PODS):
                say(f"{MEMORY}: {done:,} of {sizes.operations:,} operations")
                one_burst(lineup.world, Results(), BURST, contender, baselines[contender])
            time.sleep(SETTLE)
            results.add(busy(sizes.operations), PODWIRE, contender.daemon.pss())


CALLS = {LATENCY: latency, BURST: burst, GROWTH: growth, MEMORY: memory}
"""Sections about CNI calls, in which other plugins take part."""
CHAINS = {PORTS: ports}
POLICIES = {POLICY: policies}
PODS = {SANDBOX: sandboxes}
ROUTES = {ROUTING: routing, RESTART: restart, HEAL: heal, OVERLAY: overlay, HEALTH: health}
SOURCES = {KUBERNETES: kubernetes}
SECTIONS = {**CALLS, **CHAINS, **PODS, **POLICIES, **ROUTES, **SOURCES}
