"""Metrics and probes of a daemon whose configuration cannot be used: what there is without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from daemon.cni_server.call_counters import Tally
from daemon.config.schema import MetricsSettings
from daemon.log import Log
from daemon.metrics import families as f
from daemon.metrics.collector import read_version
from daemon.metrics.endpoint import Endpoint
from daemon.metrics.exposition import Exposition
from daemon.metrics.readings import Values, read_calls, read_status
from daemon.metrics.serving import answer_request
from daemon.routing.counters import Counts


@contextmanager
def fault_served(
    wanted: MetricsSettings | None, counts: Counts, tally: Tally, log: Log
) -> Iterator[None]:
    """Serve the fault for the duration, at the place that was salvaged; None: nowhere.

    Starts a thread: no process may be forked afterwards.
    """
    if wanted is None:
        yield
        return
    exposition = Exposition(partial(read_fault, counts, tally))
    answer = partial(answer_request, exposition, counts)
    with Endpoint(wanted.host, wanted.port, answer, counts.note_endpoint, log):
        yield


def read_fault(counts: Counts, tally: Tally) -> Values:
    """Who it is, the CNI calls, what is wrong; nothing of routes, which nobody looks at."""
    values = read_calls(tally.read())
    if counts.seen:
        status = counts.seen.status
        found = read_status(status)
        values |= {family: found[family] for family in (f.READY, f.FAULT)}
        values[f.INFO] = {(read_version(), status.node, status.backend, status.source): 1.0}
    return values
