"""How long damage lasts."""

from __future__ import annotations

import random
import time

from tests.bench.lineup import Lineup
from tests.bench.results import PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.cluster import Cluster, open_cluster, running
from tests.bench.routing.damage import Damage, list_damages, look_at_all, look_at_rules
from tests.bench.routing.member import wait_for
from tests.bench.routing.watch import Watch, completed
from tests.bench.sizes import PEERS, Sizes

HEAL = "heal"
_ABSENT = 200
FEW, MANY = f"{_ABSENT} peers", f"{PEERS:,} peers"
_GAP = 0.002
_PAUSE = 0.5
"""Seconds that pass at most between two kinds: no kind always meets the daemon's ticks alike."""


def heal(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """Every kind of damage again and again; a lost device among thousands of peers."""
    pick = random.Random(4)
    with open_cluster(lineup, PODWIRE, 1, _ABSENT) as cluster, running(cluster, lineup):
        damages = list_damages(cluster.hosts[0], cluster.real[0], cluster.absent[7])
        for number in range(sizes.heals):
            for kind, damage in damages.items():
                say(f"{HEAL}: round {number + 1} of {sizes.heals}")
                time.sleep(pick.uniform(0, _PAUSE))
                seconds = _measure(cluster, kind, damage)
                results.add(Figure(HEAL, FEW, kind), PODWIRE, seconds * 1e3)
    with open_cluster(lineup, PODWIRE, 1, PEERS) as cluster, running(cluster, lineup):
        damages = list_damages(cluster.hosts[0], cluster.real[0], cluster.absent[7])
        for kind, entries in (("route deleted", 1), ("device deleted", cluster.entries)):
            for number in range(1 + sizes.heals // 8):
                say(f"{HEAL}, {MANY}: {kind}, {number + 1}")
                time.sleep(1 + pick.uniform(0, _PAUSE))
                seconds = _measure_many(cluster, damages[kind], entries)
                results.add(Figure(HEAL, MANY, kind), PODWIRE, seconds * 1e3)


def _measure(cluster: Cluster, kind: str, damage: Damage) -> float:
    """Seconds from before the damage until a look, begun after it, finds everything as before."""
    host = cluster.hosts[0]
    whole, rules = look_at_all(host), look_at_rules(host)
    before = damage.look(host)
    began = time.monotonic()
    damage.do()
    seconds = wait_for(f"{kind}: healing", lambda: damage.look(host) == before, 0.001) - began
    wait_for(f"{kind}: the whole node", lambda: look_at_all(host) == whole)
    wait_for(f"{kind}: the rules", lambda: look_at_rules(host) == rules)
    return seconds


def _measure_many(cluster: Cluster, damage: Damage, entries: int) -> float:
    """Seconds from before the damage until so many entries have come back, by their events.

    A look at thousands of entries would take longer than the repair of one.
    """
    host = cluster.hosts[0]
    whole = look_at_all(host)
    with Watch(host, _GAP) as watch:
        began = time.monotonic()
        damage.do()
        wait_for("healing", lambda: watch.count > entries, 0.01)
        wait_for("the whole node", lambda: look_at_all(host) == whole)
    return completed(watch.changes(), entries) - began
