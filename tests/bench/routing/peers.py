"""Thousands of peers: from nothing, one that changes, none that does."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from kernel.diff import Key, key_of
from kernel.model import Entry
from tests.bench.checks import CheckFailed
from tests.bench.lineup import Lineup
from tests.bench.results import FLOOR, PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.bulk import count_entries, measure_floor
from tests.bench.routing.cluster import Cluster, open_cluster, running
from tests.bench.routing.fleet import Listed, entries_of
from tests.bench.routing.member import Member, wait_for
from tests.bench.routing.probed import VARIABLE, read_times
from tests.bench.routing.watch import Change, Watch
from tests.bench.sizes import PEERS, Sizes
from tests.bench.world import Host
from tests.pytest_netns import tools

ROUTING = "routing"
CASE = f"{PEERS:,} peers"
APPLIED = Figure(ROUTING, CASE, "from the snapshot to the last entry")
STARTED = Figure(ROUTING, CASE, "from the start of the process to the last entry")
MEMORY = Figure(ROUTING, CASE, "PSS", "MB")
IDLE_CPU = Figure(ROUTING, CASE, "idle CPU", "% of a core")
EDITED = Figure(ROUTING, CASE, "one peer changed: from the snapshot to the last entry")
PICKED_UP = Figure(ROUTING, CASE, "one peer changed: from the file to the snapshot")
OTHERS = Figure(ROUTING, CASE, "one peer changed: entries of others touched", "")
_PROBED = (sys.executable, "-m", "tests.bench.routing.probed")
_SETTLE = 1.0
"""Seconds in which a file is left alone before a start, and a daemon before it counts as idle."""


def routing(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """The floor and the daemon in turns; then changes; then quiet."""
    for number in range(sizes.starts):
        say(f"{ROUTING}: start {number + 1} of {sizes.starts}")
        _one_start(lineup, results, first=number % 2)
    with open_cluster(lineup, PODWIRE, 1, PEERS) as cluster:
        say(f"{ROUTING}: quiet for {sizes.idle:g} s")
        _measure_idle(lineup, cluster, results, sizes.idle)
    with open_cluster(lineup, PODWIRE, 1, PEERS) as cluster:
        _measure_edits(cluster, results, sizes.edits, say)


def _one_start(lineup: Lineup, results: Results, first: int) -> None:
    """A round: both bring the same entries into fresh namespaces."""
    found = {}
    for contender in (FLOOR, PODWIRE)[:: -1 if first else 1]:
        with open_cluster(lineup, contender, 1, PEERS) as cluster:
            host = cluster.hosts[0]
            if contender == FLOOR:
                seconds = measure_floor(host, entries_of(cluster.absent))
                results.add(APPLIED, FLOOR, seconds * 1e3)
            else:
                _start_daemon(cluster, results)
            found[contender] = count_entries(host)
    if found[FLOOR] != found[PODWIRE] or len(found[FLOOR]) != 3 * PEERS:
        counts = {name: len(entries) for name, entries in found.items()}
        raise CheckFailed(f"floor and podwire did not do the same: {counts}")


def _start_daemon(cluster: Cluster, results: Results) -> None:
    member, times = _probed_member(cluster)
    time.sleep(_SETTLE)
    began = time.monotonic()
    member.start({VARIABLE: str(times), "PYTHONPATH": str(tools.ROOT)})
    member.wait_in_sync(cluster.entries)
    moments = dict(reversed(read_times(times)))  # the first of each name
    member.end()
    # Like the floor's: when the kernel had answered to the last entry.
    done = moments["change-ends"]
    for what, start, end in (
        ("reading the list", "parse-begins", "parse-ends"),
        ("first plan", "plan-begins", "plan-ends"),
    ):
        results.add(Figure(ROUTING, CASE, what), PODWIRE, (moments[end] - moments[start]) * 1e3)
    results.add(
        Figure(ROUTING, CASE, "from the plan to the last entry"),
        PODWIRE, (done - moments["plan-ends"]) * 1e3,
    )  # fmt: skip
    results.add(APPLIED, PODWIRE, (done - moments["snapshot-ends"]) * 1e3)
    results.add(STARTED, PODWIRE, (done - began) * 1e3)


def _probed_member(cluster: Cluster) -> tuple[Member, Path]:
    return cluster.member(0, _PROBED), cluster.hosts[0].work_dir / "times"


def _measure_idle(lineup: Lineup, cluster: Cluster, results: Results, seconds: float) -> None:
    with running(cluster, lineup) as (member,):
        time.sleep(2 * _SETTLE)
        before, began = member.daemon.cpu(), time.monotonic()
        time.sleep(seconds)
        used = (member.daemon.cpu() - before) / (time.monotonic() - began)
        results.add(IDLE_CPU, PODWIRE, used * 100)
        results.add(MEMORY, PODWIRE, member.daemon.pss())


def _measure_edits(cluster: Cluster, results: Results, count: int, say: Say) -> None:
    member, times = _probed_member(cluster)
    member.start({VARIABLE: str(times), "PYTHONPATH": str(tools.ROOT)})
    member.wait_in_sync(cluster.entries)
    time.sleep(_SETTLE)
    nodes = [*cluster.real, *cluster.absent]
    try:
        with Watch(cluster.hosts[0]) as watch:
            for number in range(count):
                for what, change in _EDITS.items():
                    say(f"{ROUTING}: change {number + 1} of {count}")
                    place = 1 + (number * 997) % PEERS
                    old = nodes[place]
                    nodes[place] = change(old, number)
                    _one_edit(cluster, nodes, watch, times, results, (what, old, nodes[place]))
    finally:
        member.end()


def _move(node: Listed, number: int) -> Listed:
    return replace(node, address=f"198.19.255.{number % 250 + 1}")


def _renumber(node: Listed, number: int) -> Listed:
    return replace(node, prefix=IPv4Network((int(node.prefix.network_address) + (1 << 23), 24)))


_EDITS = {"another address": _move, "another pod CIDR": _renumber}


def _one_edit(
    cluster: Cluster, nodes: Sequence[Listed], watch: Watch, times: Path, results: Results,
    edit: tuple[str, Listed, Listed],
) -> None:  # fmt: skip
    what, old, new = edit
    seen, known = watch.count, len(read_times(times))
    written = time.monotonic()
    cluster.write(nodes)
    before, after = set[Entry](old.entries), set[Entry](new.entries)
    wanted = {key_of(entry) for entry in before ^ after}

    def is_done() -> bool:
        return wanted <= {key_of(change.entry) for change in watch.changes(seen)}

    wait_for(f"{what} in the kernel", is_done, gap=0.05)
    time.sleep(0.2)  # whatever else the daemon might do
    changes = watch.changes(seen)
    delivered = next(when for name, when in read_times(times)[known:] if name == "snapshot-ends")
    results.add(EDITED, PODWIRE, (changes[-1].time - delivered) * 1e3)
    results.add(PICKED_UP, PODWIRE, (delivered - written) * 1e3)
    results.add(OTHERS, PODWIRE, len(_foreign(changes, wanted)))
    _check_present(cluster.hosts[0], nodes)


def _foreign(changes: Iterable[Change], wanted: Set[Key]) -> list[Change]:
    return [change for change in changes if key_of(change.entry) not in wanted]


def _check_present(host: Host, nodes: Sequence[Listed]) -> None:
    entries = {key_of(entry): entry for entry in entries_of(nodes[1:])}
    if count_entries(host) != entries:
        raise CheckFailed("after a change the kernel has other entries than the list says")
