"""The daemon's metrics, and whether it is alive and ready, over HTTP for Prometheus and probes.

Numbers are counted where things happen, by modules that import nothing of this package. `families`
gives them names, `collector` reads them for each scrape, `endpoint` serves them. prometheus_client
is imported at the first scrape, http.server where metrics are configured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from daemon.liveness.watchdog import Watchdog
from kernel.errors import KernelError

if TYPE_CHECKING:
    from daemon.log import Log
    from daemon.metrics.collector import Sources


@contextmanager
def metrics_served(sources: Sources, log: Log, watchdog: Watchdog) -> Iterator[None]:
    """Serve the configured endpoint for the duration; its errors never fail the daemon.

    It starts threads: no process may be forked afterwards.
    """
    settings = sources.settings.metrics
    if settings is None:
        from kernel.nftables.dns_counters import stop_counting_dns

        with suppress(KernelError):  # a kernel without nftables has no counters
            stop_counting_dns()
        yield
        return
    from daemon.metrics.collector import Collector
    from daemon.metrics.endpoint import Endpoint, Exposition, Pages

    pages = Pages(Exposition(Collector(sources).read), sources.counts, watchdog.describe_stall)
    loop = watchdog.add("metrics")
    with Endpoint(*settings.listen, pages, sources.counts.note_endpoint, log, loop):
        yield
