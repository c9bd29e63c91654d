"""Results as a picture: bars of medians with a whisker to p99, on a logarithmic scale of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from tests.bench.results import CONTENDERS, Figure, Results
from tests.bench.stats import Summary
from tests.bench.table import show, show_ratio

COLOURS = dict(
    zip(CONTENDERS, ("#9a9a9a", "#d97b29", "#c9a227", "#1f6fb4", "#7fb3dd", "#5a9e5a"), strict=True)
)
LEFT, WIDTH, RIGHT, TOP, BAR, GAP = 330, 620, 110, 60, 11, 12
"""Pixels: names, scale, ratios, legend, the height of a bar, the space between figures."""

_STYLE = (
    "text{font:11px sans-serif;fill:#222}.h{font-weight:bold;font-size:14px}.r{font-weight:bold}"
)


def render_svg(results: Results, title: str) -> str:
    """An SVG document with all figures of a time."""
    figures = [(figure, summaries) for figure, summaries in results if figure.unit == "ms"]
    scale = _Scale([s for _, summaries in figures for s in summaries.values()])
    body: list[str] = []
    y = TOP
    for figure, summaries in figures:
        bars = [(name, summaries[name]) for name in CONTENDERS if name in summaries]
        body += _figure(figure, bars, results.ratio(figure), y, scale)
        y += BAR * len(bars) + GAP
    total = LEFT + WIDTH + RIGHT
    frame = f'<rect width="{total}" height="{y + 20}" fill="white"/>'
    size = f'width="{total}" height="{y + 20}" viewBox="0 0 {total} {y + 20}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{_STYLE}</style>", frame]
    return "\n".join([*parts, *_head(title), *scale.grid(y), *body, "</svg>", ""])


class _Scale:
    """Milliseconds to pixels."""

    def __init__(self, summaries: list[Summary]) -> None:
        values = [value for s in summaries for value in (s.median, s.p99) if value > 0] or [1.0]
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)

    def x(self, value: float) -> float:
        exponent = math.log10(value) if value > 0 else self._low
        return round(LEFT + WIDTH * (exponent - self._low) / (self._high - self._low), 1)

    def grid(self, bottom: float) -> Iterator[str]:
        for exponent in range(self._low, self._high + 1):
            x, label = self.x(10.0**exponent), f"{10.0**exponent:g} ms"
            yield f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{bottom}" stroke="#ddd"/>'
            yield _text(x, TOP - 10, label, "middle")


def _head(title: str) -> Iterator[str]:
    yield _text(10, 20, title, kind="h")
    x = 10
    for name, colour in COLOURS.items():
        yield f'<rect x="{x}" y="30" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 14, 39, name)
        x += 90
    yield _text(LEFT + WIDTH + 10, TOP - 10, "ratio", kind="r")


def _figure(
    figure: Figure, bars: list[tuple[str, Summary]], ratio: float | None, y: float, scale: _Scale
) -> Iterator[str]:
    middle = y + BAR * len(bars) / 2 + 4
    yield _text(LEFT - 8, middle, f"{figure.case}: {figure.what}", "end")
    if ratio is not None:
        yield _text(LEFT + WIDTH + 10, middle, show_ratio(ratio), kind="r")
    for name, summary in bars:
        end, far, centre = scale.x(summary.median), scale.x(summary.p99), y + BAR / 2
        bar = f'x="{LEFT}" y="{y + 1}" width="{round(end - LEFT, 1)}" height="{BAR - 2}"'
        yield f'<rect {bar} fill="{COLOURS[name]}"/>'
        yield f'<line x1="{end}" y1="{centre}" x2="{far}" y2="{centre}" stroke="#222"/>'
        yield _text(far + 4, centre + 4, show(summary.median))
        y += BAR


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
