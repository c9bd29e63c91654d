"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.results import CONTENDERS, Results
from tests.bench.stats import Summary
from tests.bench.targets import Verdict

NOTHING = "-"


def render_columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Cells in columns, the first few flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def render_results(results: Results) -> str:
    """A row for each figure: median and p99 of each contender, and podwire's ratio."""
    measured = {name for _, summaries in results for name in summaries}
    names = [name for name in CONTENDERS if name in measured]
    rows = [["", *names, "ratio"]]
    for figure, summaries in results:
        title = f"{figure.section}: {figure.case}: {figure.what}"
        title += f", {figure.unit}" if figure.unit else ""
        cells = [_cell(summaries.get(name)) for name in names]
        rows.append([title, *cells, show_ratio(results.ratio(figure))])
    return render_columns(rows)


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return NOTHING
    if summary.count == 1:
        return show(summary.median)
    return f"{show(summary.median)} ({show(summary.p99)})"


def show(value: float) -> str:
    """A figure with three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show_ratio(value: float | None) -> str:
    """A ratio, small ones with more digits."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}" if value else "0"


def render_verdicts(verdicts: Iterable[Verdict]) -> str:
    """A row for each target, with whether it is reached."""
    rows = [["target", "limit", "measured", "reached"]]
    for verdict in verdicts:
        target = verdict.target
        limit = f"{target.limit:g} {target.unit}".strip()
        limit = f"at least {limit}" if target.at_least else limit
        rows.append([target.what, limit, _measured(verdict), _answer(verdict)])
    return render_columns(rows)


def _measured(verdict: Verdict) -> str:
    if verdict.value is None:
        return NOTHING
    unit = verdict.target.unit
    return f"{show(verdict.value)} {unit}" if unit else show_ratio(verdict.value)


def _answer(verdict: Verdict) -> str:
    if verdict.value is None:
        return "not measured"
    aim = "" if verdict.target.must else " (an aim)"
    return ("yes" if verdict.reached else "NO") + aim
