"""The section of a run."""

from __future__ import annotations

from tests.bench.kubernetes.arrival import measure_arrival
from tests.bench.kubernetes.fleet import open_api, publish
from tests.bench.kubernetes.quiet import KUBERNETES, measure_quiet
from tests.bench.kubernetes.restarts import measure_restarts
from tests.bench.lineup import Lineup
from tests.bench.results import Results
from tests.bench.rounds import Say
from tests.bench.routing.fleet import list_peers
from tests.bench.sizes import PEERS, Sizes


def kubernetes(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """Thousands of nodes on one API server; then hundreds of daemons that start at once."""
    with open_api(lineup.world) as api:
        case = f"{PEERS:,} nodes; {api.kind}"
        say(f"{KUBERNETES}: {PEERS:,} nodes on {api.kind}")
        publish(api, list_peers(PEERS))
        measure_quiet(api, results, sizes, say, lineup.world.work_dir, case)
        measure_arrival(lineup, api, results, sizes, say, case)
    with open_api(lineup.world) as api:
        measure_restarts(lineup, api, results, sizes, say)
