"""ADD and DEL of pods with mapped ports, one at a time and many at once; new connections."""

from __future__ import annotations

from tests.bench.lineup import Lineup
from tests.bench.ports.lineup import LABELS, PORTS_NETWORK, port_contenders
from tests.bench.ports.mapped import PORTS, new_connections
from tests.bench.results import Results
from tests.bench.rounds import Rounds, Say, in_turns, in_use, one_burst
from tests.bench.sizes import Sizes


def ports(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """What the reference's chain does, by podwire in one call, and by the drop-in names."""
    run = Rounds(lineup.world, results, PORTS, PORTS_NETWORK.case)
    with (
        port_contenders(lineup, *LABELS) as contenders,
        in_use(lineup.world, contenders) as baselines,
    ):
        for number in range(sizes.rounds + 1):
            say(f"{PORTS}: round {number} of {sizes.rounds}")
            for contender in in_turns(contenders, number):
                run.run(contender, baselines[contender], number)
        for number in range(sizes.bursts):
            say(f"{PORTS}, bursts: {number + 1} of {sizes.bursts}")
            for contender in in_turns(contenders, number):
                one_burst(lineup.world, results, PORTS, contender, baselines[contender])
    new_connections(lineup, results, sizes, say)
