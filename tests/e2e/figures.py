"""What the tests measure on their way: printed at the end, compared with nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.daemon import pss
from tests.e2e.machine import Machine
from tests.e2e.pods import read

METRICS = 9473


@dataclass
class Figures:
    """The figures of a run, in the order of the tests."""

    lines: list[str] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str) -> None:
        """A figure of a test."""
        self.lines.append(f"{value:>9,.4g} {unit:<3} {what}")


@dataclass(frozen=True)
class Adds:
    """The successful ADDs of a daemon so far. buckets: by their upper bounds, in seconds."""

    count: float
    seconds: float
    buckets: dict[float, float]

    def since(self, before: Adds) -> Adds:
        """Those that came after `before`."""
        buckets = {le: n - before.buckets[le] for le, n in self.buckets.items()}
        return Adds(self.count - before.count, self.seconds - before.seconds, buckets)

    def below(self, share: float) -> float:
        """Within how many seconds a share of them ended: the bound of a bucket."""
        return min(le for le, n in self.buckets.items() if n >= share * self.count)


def read_adds(machine: Machine) -> Adds:
    """What a daemon counted."""
    text = machine.node.ns.call(lambda: read(f"http://127.0.0.1:{METRICS}/metrics"))
    [family] = [
        f
        for f in text_string_to_metric_families(text)
        if f.name == "podwire_cni_call_duration_seconds"
    ]
    found = [
        s for s in family.samples if (s.labels["verb"], s.labels["result"]) == ("ADD", "success")
    ]
    values = {s.name.rpartition("_")[2]: s.value for s in found if "le" not in s.labels}
    buckets = {float(s.labels["le"]): s.value for s in found if "le" in s.labels}
    return Adds(values["count"], values["sum"], buckets)


def daemon_pss(machine: Machine) -> float:
    """Memory of a daemon in MB (10^6 bytes)."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in machine.processes}
    # It is before those that it has forked.
    return pss(next(pid for pid, line in lines.items() if b"/podwired\0run\0" in line))
