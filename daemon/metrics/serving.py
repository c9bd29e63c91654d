"""Metrics and probes as `podwired run` has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from daemon.log import Log
from daemon.metrics.collector import Collector, Sources
from daemon.metrics.endpoint import Endpoint
from daemon.metrics.exposition import Exposition
from daemon.metrics.http import Request, Response, tell
from daemon.metrics.standing import answer_alive, answer_ready
from daemon.routing.counters import Counts
from kernel.errors import KernelError
from kernel.nftables.dns_counters import stop_counting_dns

_PATHS = "there are /metrics, /healthz and /readyz"


@contextmanager
def metrics_served(sources: Sources, log: Log) -> Iterator[None]:
    """Serve what the settings want for the duration; nothing of it ever fails the daemon.

    Starts a thread: no process may be forked afterwards.
    """
    wanted, counts = sources.settings.metrics, sources.counts
    if wanted is None:
        with suppress(KernelError):  # a kernel without nftables counts nothing
            stop_counting_dns()
        yield
        return
    exposition = Exposition(Collector(sources).read)
    answer = partial(answer_request, exposition, counts)
    with Endpoint(wanted.host, wanted.port, answer, counts.note_endpoint, log):
        yield


def answer_request(exposition: Exposition, counts: Counts, request: Request) -> Response:
    """The answer to a request."""
    if request.path == "/metrics":
        content_type, body = exposition.render(request.accept)
        return Response(200, body, content_type)
    if request.path == "/healthz":
        return answer_alive(counts, time.monotonic())
    if request.path == "/readyz":
        return answer_ready(counts)
    return tell(404, _PATHS)
