"""What it costs to know whether thousands of peers can be reached; all of them answer, and ask."""

from __future__ import annotations

import time
from typing import Any

from tests.bench.checks import CheckFailed
from tests.bench.lineup import Lineup
from tests.bench.results import FLOOR, PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.cluster import Cluster, find_daemon, open_cluster
from tests.bench.routing.crowd import Crowd
from tests.bench.routing.member import Member, wait_for
from tests.bench.sizes import PEERS, Sizes
from tests.bench.world import Host

HEALTH = "health"
CASE = f"{PEERS:,} peers"
CPU = Figure(HEALTH, CASE, "idle CPU", "% of a core")
PROBES = Figure(HEALTH, CASE, "probes sent and answered in a second", "")
SENT = Figure(HEALTH, CASE, "packets sent in a second", "")
RECEIVED = Figure(HEALTH, CASE, "packets received in a second", "")
MEMORY = Figure(HEALTH, CASE, "PSS", "MB")
BUDGET = 20.0
"""Probes a second: the default of podwired.yaml."""
_SETTLE = 5.0
_FIRST = 2 * PEERS / BUDGET
"""Seconds in which every peer has been tried."""


def health(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """The daemon without probes (the floor) and with them, idle but for these."""
    for wanted, contender in ((False, FLOOR), (True, PODWIRE)):
        say(f"{HEALTH}: quiet for {sizes.idle:g} s, probes {'on' if wanted else 'off'}")
        with open_cluster(lineup, contender, 1, PEERS) as cluster:
            _measure(lineup, cluster, results, sizes, contender, wanted=wanted)


def _measure(
    lineup: Lineup, cluster: Cluster, results: Results, sizes: Sizes, contender: str,
    *, wanted: bool,
) -> None:  # fmt: skip
    member = cluster.member(0, [find_daemon(lineup)], **({} if wanted else {"health": False}))
    crowd = Crowd(cluster.hosts[0], cluster.real[0], cluster.absent, BUDGET)
    try:
        member.start()
        member.wait_in_sync(cluster.entries)
        time.sleep(_SETTLE)
        with crowd:
            time.sleep(_SETTLE)
            if wanted and sizes.all_probed:
                wait_for("every peer's first answer", lambda: _is_settled(member), 1.0, _FIRST)
            _measure_quiet(member, crowd, results, sizes.idle, contender)
        if wanted:
            _check(member, crowd)
    finally:
        member.end()


def _measure_quiet(
    member: Member, crowd: Crowd, results: Results, seconds: float, contender: str
) -> None:
    before, answered, cpu = _packets(member.host), crowd.answered, member.daemon.cpu()
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    after = _packets(member.host)
    results.add(CPU, contender, (member.daemon.cpu() - cpu) / took * 100)
    results.add(PROBES, contender, (crowd.answered - answered) / took)
    results.add(SENT, contender, (after["tx"] - before["tx"]) / took)
    results.add(RECEIVED, contender, (after["rx"] - before["rx"]) / took)
    results.add(MEMORY, contender, member.daemon.pss())


def _is_settled(member: Member) -> bool:
    return bool(member.status()["health"]["established"] == PEERS)


def _packets(host: Host) -> dict[str, int]:
    [link] = host.node.ns.ip("-s link show dev eth0")
    return {way: int(link["stats64"][way]["packets"]) for way in ("rx", "tx")}


def _check(member: Member, crowd: Crowd) -> None:
    """Whether the probes were what they should be: answered, and the peers' own too."""
    found: dict[str, Any] = member.status()["health"]
    if not found["established"] or found["failed"] or not crowd.heard:
        raise CheckFailed(f"the peers answer, and are not reached: {found}, {crowd.heard} answers")
