"""Nodes whose metrics can be read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.netns.metrics.programs import Prometheus, fetch
from tests.netns.routing.conftest import Cluster, Member, cluster, eventually, pair

__all__ = ["Cluster", "Member", "cluster", "eventually", "pair"]

PORT = 9473

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(member: Member) -> Samples:
    """All that the member's daemon shows, by name and labels. Raises OSError."""
    status, body = fetch(member.node, "127.0.0.1", PORT, "/metrics")
    assert status == 200, body
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(member: Member, name: str, **labels: str) -> float | None:
    """One value that it shows; None where it does not."""
    try:
        found = samples(member)
    except OSError:
        return None
    return found.get((f"podwire_{name}", frozenset(labels.items())))


def shows(member: Member, wanted: float, name: str, **labels: str) -> object:
    """True where it shows this value, else what it shows."""
    found = value(member, name, **labels)
    return found == wanted or (name, labels, found, member.log)


StartPrometheus = Callable[..., Prometheus]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[StartPrometheus]:
    """Starts Prometheus servers: `prometheus(node, targets)`."""
    started: list[Prometheus] = []

    def start(member: Member, targets: Sequence[str], rules: Sequence[Path] = ()) -> Prometheus:
        folder = tmp_path / f"prometheus-{len(started)}"
        folder.mkdir()
        started.append(Prometheus(member.node, folder, targets, rules))
        return started[-1]

    yield start
    for server in started:
        server.stop()
