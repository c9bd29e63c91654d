"""The answer to a scrape, as prometheus_client renders it: all that podwire uses of it is here.

It is loaded at the first scrape: a daemon that nobody scrapes does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from daemon.cni_server.call_counters import BOUNDS as CALL_BOUNDS
from daemon.cni_server.call_counters import Histogram
from daemon.metrics import families as f
from daemon.metrics.families import FAMILIES, Family
from daemon.metrics.readings import Labels, Values
from daemon.routing.counters import BOUNDS as TURN_BOUNDS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

_BOUNDS = {f.CALL_SECONDS: CALL_BOUNDS, f.TURN_SECONDS: TURN_BOUNDS}
_SUFFIX = {"counter": "_total", "info": "_info"}


class Exposition:
    """Renders what `read` reads, and what the process itself uses."""

    def __init__(self, read: Callable[[], Values]) -> None:
        self._read = read
        self._registry: CollectorRegistry | None = None

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body, in the format that an Accept header asks for."""
        from prometheus_client.exposition import choose_encoder

        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # it names a version that is no number
            encode, content_type = choose_encoder("")
        return content_type, encode(self._open())

    def collect(self) -> Iterator[Metric]:
        """All families that have values, in their order; the registry asks."""
        values = self._read()
        return (as_metric(family, values[family]) for family in FAMILIES if family in values)

    def _open(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, ProcessCollector

        if self._registry is None:
            # Not the library's own registry, which shows Python's garbage collector, too.
            registry = CollectorRegistry(auto_describe=False)
            registry.register(self)
            ProcessCollector(registry=registry)
            self._registry = registry
        return self._registry


def as_metric(family: Family, values: dict[Labels, float | Histogram]) -> Metric:
    """A family with its values as prometheus_client has them."""
    from prometheus_client.core import Metric

    made = Metric(family.name, family.help, family.kind)
    for labels, value in values.items():
        named = dict(zip(family.labels, labels, strict=True))
        if isinstance(value, Histogram):
            _add_histogram(made, family, named, value)
        else:
            made.add_sample(family.name + _SUFFIX.get(family.kind, ""), named, value)
    return made


def _add_histogram(made: Metric, family: Family, labels: dict[str, str], value: Histogram) -> None:
    from prometheus_client.utils import floatToGoString

    bounds = [*map(floatToGoString, _BOUNDS[family]), "+Inf"]
    for bound, count in zip(bounds, accumulate(value.buckets), strict=True):
        made.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    made.add_sample(f"{family.name}_count", labels, sum(value.buckets))
    made.add_sample(f"{family.name}_sum", labels, value.seconds)
