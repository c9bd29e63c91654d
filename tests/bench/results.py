"""Everything that a run measured: samples by figure and contender."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.stats import Summary, ratio, summarize

FLOOR, PEER, BY_HAND, PODWIRE, DROP_IN, STANDALONE, KINDNET = (
    "floor", "reference", "by hand", "podwire", "drop-in", "standalone", "kindnet",
)  # fmt: skip
CONTENDERS = (FLOOR, PEER, BY_HAND, PODWIRE, DROP_IN, STANDALONE, KINDNET)
"""In the order in which tables show them."""
YARDSTICKS = (PEER, BY_HAND, FLOOR)
"""What podwire is compared with: the first of them that did the same."""


@dataclass(frozen=True, slots=True, order=True)
class Figure:
    """What was measured, but not on whom. unit: ms, MB, bytes and more; none for a number."""

    section: str
    case: str
    what: str
    unit: str = "ms"


class Results:
    """Samples by figure and contender, in the order in which figures appeared."""

    def __init__(self) -> None:
        self._samples: dict[Figure, dict[str, list[float]]] = {}

    def add(self, figure: Figure, contender: str, *samples: float) -> None:
        """Add samples, in the figure's unit."""
        self._samples.setdefault(figure, {}).setdefault(contender, []).extend(samples)

    def __iter__(self) -> Iterator[tuple[Figure, dict[str, Summary]]]:
        for figure, by_contender in self._samples.items():
            yield figure, {name: summarize(samples) for name, samples in by_contender.items()}

    def median(self, figure: Figure, contender: str) -> float | None:
        """A median; None where it was not measured."""
        samples = self._samples.get(figure, {}).get(contender)
        return summarize(samples).median if samples else None

    def ratio(self, figure: Figure) -> float | None:
        """podwire's median as a multiple of the first of the YARDSTICKS that was measured."""
        theirs = (self.median(figure, name) for name in YARDSTICKS)
        measured = next((value for value in theirs if value is not None), None)
        return ratio(self.median(figure, PODWIRE), measured)

    def least_ratio(self, figures: Iterable[Figure]) -> float | None:
        """The lowest ratio of several figures."""
        found = [r for r in map(self.ratio, figures) if r is not None]
        return min(found, default=None)

    def highest(self, figures: Iterable[Figure], contender: str = PODWIRE) -> float | None:
        """The highest sample of several figures; None where nothing was measured."""
        found = (self._samples.get(figure, {}).get(contender, []) for figure in figures)
        return max((value for samples in found for value in samples), default=None)

    def figures(self, section: str) -> list[Figure]:
        """All figures of a section."""
        return [figure for figure in self._samples if figure.section == section]

    def worst_ratio(self, figures: Iterable[Figure]) -> float | None:
        """The highest ratio of several figures."""
        found = [r for r in map(self.ratio, figures) if r is not None]
        return max(found, default=None)

    def to_json(self, section: str) -> list[dict[str, Any]]:
        """One object for each figure of a section, with summaries and samples."""
        return [
            {
                **asdict(figure),
                "ratio": self.ratio(figure),
                "contenders": {
                    name: {**asdict(summarize(samples)), "samples": [round(s, 6) for s in samples]}
                    for name, samples in by_contender.items()
                },
            }
            for figure, by_contender in self._samples.items()
            if figure.section == section
        ]
