"""A section's results as a picture: bars of medians with a line to p99, rows grouped by case.

Rows of one case and unit share a panel, panels of one unit share their scale.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from tests.bench.results import CONTENDERS, Results
from tests.bench.stats import Summary
from tests.bench.table import show, show_ratio

COLOURS = dict(
    zip(
        CONTENDERS,
        ("#9a9a9a", "#d97b29", "#c9a227", "#1f6fb4", "#4f8f9f", "#7fb3dd", "#5a9e5a"),
        strict=True,
    )
)
WIDTH, RIGHT, TOP = 11.0, 0.9, 0.9
"""Inches: the picture, and its margins for ratios and units, title and legend."""
BAR, GAP, ABOVE, BELOW = 0.16, 0.1, 0.32, 0.32
"""Inches: a bar, the space between rows, the space of a case's name and of a panel's scale."""
FONT_SIZE, TITLE_SIZE = 8, 12  # points
CHARACTER = 0.07
"""Inches: the mean width of a character of a row's name."""
NAME_MAX = 44  # characters of a line
_LOGARITHMIC_FROM = 30
"""A scale is logarithmic where its largest value is so many times its smallest."""
_ROOM = 0.15
"""The part of a scale, beyond its largest value, where that value is written."""


@dataclass(frozen=True)
class Row:
    """One figure: its name in lines, and a bar for each contender that was measured."""

    lines: tuple[str, ...]
    bars: tuple[tuple[str, Summary], ...]
    ratio: float | None

    @property
    def height(self) -> float:
        """Inches, the space below included."""
        return max(len(self.bars), len(self.lines)) * BAR + GAP


@dataclass(frozen=True)
class Panel:
    """The rows of one case and one unit, which have a scale in common. title: empty below another
    panel of the same case.
    """

    title: str
    unit: str
    rows: tuple[Row, ...]

    @property
    def height(self) -> float:
        """Inches, without title and scale."""
        return sum(row.height for row in self.rows) + GAP

    @property
    def above(self) -> float:
        """Inches for the title."""
        return ABOVE if self.title else 0


def draw(results: Results, section: str, title: str) -> Picture:
    """The picture of a section. `savefig` writes it, in the format of the file's suffix."""
    panels = list(_panels(results, section))
    height = TOP + sum(panel.above + panel.height + BELOW for panel in panels)
    picture = Picture(figsize=(WIDTH, height))
    _draw_head(picture, panels, f"{section}: {title}")
    limits = {unit: _limits([p for p in panels if p.unit == unit]) for unit in _units(panels)}
    longest = max((len(line) for p in panels for r in p.rows for line in r.lines), default=0)
    left, top = 0.3 + longest * CHARACTER, height - TOP
    for panel in panels:
        top -= panel.above + panel.height
        box = (left / WIDTH, top / height, 1 - (left + RIGHT) / WIDTH, panel.height / height)
        _draw_panel(picture.add_axes(box), panel, limits[panel.unit])
        top -= BELOW
    return picture


def _panels(results: Results, section: str) -> Iterator[Panel]:
    rows: dict[str, dict[str, list[Row]]] = {}
    for figure, summaries in results:
        if figure.section == section:
            bars = tuple((name, summaries[name]) for name in CONTENDERS if name in summaries)
            lines = tuple(textwrap.wrap(figure.what, NAME_MAX))
            row = Row(lines, bars, results.ratio(figure))
            rows.setdefault(figure.case, {}).setdefault(figure.unit, []).append(row)
    for case, by_unit in rows.items():
        for place, (unit, found) in enumerate(by_unit.items()):
            yield Panel("" if place else case, unit, tuple(found))


def _units(panels: Iterable[Panel]) -> set[str]:
    return {panel.unit for panel in panels}


def _bars(panels: Iterable[Panel]) -> list[tuple[str, Summary]]:
    return [bar for panel in panels for row in panel.rows for bar in row.bars]


def _draw_head(picture: Picture, panels: Sequence[Panel], title: str) -> None:
    height = picture.get_figheight()
    left = 0.15 / WIDTH
    picture.text(left, 1 - 0.3 / height, title, fontsize=TITLE_SIZE, fontweight="bold")
    picture.text(
        left, 1 - 0.52 / height,
        "bars: medians, lines: to p99; right: podwire's median as a multiple of the reference's, "
        "else of what was done by hand, else of the floor's",
        fontsize=FONT_SIZE,
    )  # fmt: skip
    measured = {name for name, _ in _bars(panels)}
    names = [name for name in CONTENDERS if name in measured]
    if names:
        picture.legend(
            handles=[Patch(color=COLOURS[name], label=name) for name in names],
            loc="upper left", bbox_to_anchor=(0.1 / WIDTH, 1 - 0.58 / height),
            ncols=len(names), frameon=False, fontsize=FONT_SIZE,
        )  # fmt: skip


def _limits(panels: Sequence[Panel]) -> tuple[float, float, bool]:
    """The scale of all panels of a unit: from, to, and whether it is logarithmic."""
    values = [value for _, summary in _bars(panels) for value in (summary.median, summary.p99)]
    highest, lowest = max(values), min((value for value in values if value > 0), default=0)
    if highest <= 0:
        return 0, 1, False
    if highest / lowest >= _LOGARITHMIC_FROM:
        least = lowest / 2
        return least, highest * (highest / least) ** _ROOM, True
    return 0, highest * (1 + _ROOM), False


def _draw_panel(axes: Axes, panel: Panel, limits: tuple[float, float, bool]) -> None:
    least, most, logarithmic = limits
    axes.set_xscale("log" if logarithmic else "linear")
    axes.set_xlim(least, most)
    axes.set_ylim(panel.height, 0)  # inches from the top
    axes.set_title(panel.title, loc="left", fontsize=FONT_SIZE + 1, fontweight="bold")
    axes.annotate(panel.unit, (1.01, 0), xycoords="axes fraction", va="center", fontsize=FONT_SIZE)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.9g}"))
    axes.tick_params(labelsize=FONT_SIZE, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#ddd", linewidth=0.5)
    axes.set_axisbelow(True)
    middles = []
    top = GAP
    for row in panel.rows:
        middles.append(top + (row.height - GAP) / 2)
        _draw_row(axes, row, middles[-1], least)
        top += row.height
    axes.set_yticks(middles, ["\n".join(row.lines) for row in panel.rows])


def _draw_row(axes: Axes, row: Row, middle: float, least: float) -> None:
    first = middle - (len(row.bars) - 1) * BAR / 2
    for place, (name, summary) in enumerate(row.bars):
        y = first + place * BAR
        axes.barh(y, max(summary.median - least, 0), BAR * 0.85, left=least, color=COLOURS[name])
        axes.plot([summary.median, summary.p99], [y, y], color="#222", linewidth=0.8)
        axes.annotate(
            show(summary.median), (max(summary.median, summary.p99, least), y), (3, 0),
            textcoords="offset points", va="center", fontsize=FONT_SIZE - 1,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    if row.ratio is not None:
        axes.annotate(
            f"{show_ratio(row.ratio)}\N{MULTIPLICATION SIGN}", (1.01, middle),
            xycoords=("axes fraction", "data"), va="center", fontsize=FONT_SIZE, fontweight="bold",
        )  # fmt: skip
