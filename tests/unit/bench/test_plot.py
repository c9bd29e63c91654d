"""The picture of a section: every figure is on it, and every text can be read."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.figure import Figure as Picture
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tests.bench.plot import draw
from tests.bench.results import CONTENDERS, FLOOR, PEER, PODWIRE, Figure, Results

SECTION = "latency"


def shown(picture: Picture) -> list[tuple[str, Bbox]]:
    """The texts that are drawn, and where. A tick beyond its scale has a text that is not drawn."""
    picture.draw_without_rendering()
    beyond = {
        tick.label1
        for axes in picture.axes
        for tick in axes.xaxis.get_major_ticks()
        if not axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]
    }
    found = [t for t in picture.findobj(Text) if isinstance(t, Text) and t not in beyond]
    return [
        (text.get_text(), text.get_window_extent())
        for text in found
        if text.get_visible() and text.get_text()
    ]


def results_of(*figures: tuple[str, str, str], samples: dict[str, list[float]]) -> Results:
    made = Results()
    for case, what, unit in figures:
        for name, values in samples.items():
            made.add(Figure(SECTION, case, what, unit), name, *values)
    return made


@pytest.mark.parametrize(("factor", "spread"), [(1e-3, 400), (1, 1), (1, 7), (1e3, 60)])
def test_no_text_hides_another_and_none_is_cut_off(factor: float, spread: float) -> None:
    every = {
        name: [factor * spread**place, factor * spread**place * 1.3]
        for place, name in enumerate(CONTENDERS[:4])
    }
    every |= {name: [factor] for name in CONTENDERS[4:]}
    long = "a known node has another address: from before it is written to the kernel's last entry"
    made = results_of(
        ("bridge", "ADD", "ms"), ("bridge", "DEL", "ms"), ("ptp", "ADD", "ms"),
        ("bridge", "idle CPU", "% of a core"), ("ptp", "packets lost", ""), samples=every,
    )  # fmt: skip
    made.add(Figure(SECTION, "ptp", long), PODWIRE, 1.0)
    made.add(Figure(SECTION, "ptp", "nothing", "bytes"), PODWIRE, 0.0)
    picture = draw(made, SECTION, "podwire 0.1.0 and reference plugins v1.9.1, Linux 6.18.44")
    texts = shown(picture)
    assert len(texts) > 60
    overlaps = [
        (a, b)
        for (a, box), (b, other) in combinations(texts, 2)
        if Bbox.intersection(box, other) is not None
    ]
    assert overlaps == []
    canvas = Bbox.from_extents(0, 0, *picture.bbox.size)
    assert [text for text, box in texts if not _is_within(box, canvas)] == []


def _is_within(box: Bbox, outer: Bbox) -> bool:
    return bool(outer.containsx(box.x0) and outer.containsx(box.x1)) and bool(
        outer.containsy(box.y0) and outer.containsy(box.y1)
    )


def test_the_section_is_shown_with_values_ratio_and_units_and_no_other() -> None:
    made = results_of(("bridge", "ADD", "ms"), samples={FLOOR: [0.7], PEER: [8], PODWIRE: [2.0]})
    made.add(Figure("memory", "podwired", "idle", "MB"), PODWIRE, 41.5)
    texts = {text for text, _ in shown(draw(made, SECTION, "a <title> & more"))}
    assert {"latency: a <title> & more", "bridge", "ADD", "ms"} <= texts
    assert {FLOOR, PEER, PODWIRE, "0.70", "8.00", "2.00", "0.25×"} <= texts  # noqa: RUF001
    assert not {"podwired", "idle", "MB", "41.5"} & texts


def test_a_bar_ends_at_the_median_and_its_line_at_p99() -> None:
    made = results_of(("bridge", "ADD", "ms"), samples={PODWIRE: [2.0, 3.0, 9.0]})
    (axes,) = draw(made, SECTION, "").axes
    (bar,) = axes.patches
    assert bar.get_extents().transformed(axes.transData.inverted()).x1 == pytest.approx(3.0)
    assert axes.lines[0].get_xdata() == pytest.approx([3.0, 9.0])


def test_panels_of_one_unit_share_their_scale() -> None:
    made = results_of(("bridge", "ADD", "ms"), ("bridge", "RSS", "MB"), samples={PODWIRE: [2.0]})
    made.add(Figure(SECTION, "ptp", "ADD"), PEER, 1500.0)
    bridge, memory, ptp = draw(made, SECTION, "").axes
    assert bridge.get_xlim() == ptp.get_xlim()
    assert (bridge.get_xscale(), memory.get_xscale()) == ("log", "linear")
    assert [axes.get_title(loc="left") for axes in (bridge, memory, ptp)] == ["bridge", "", "ptp"]


def test_a_picture_of_nothing_is_a_picture() -> None:
    texts = [text for text, _ in shown(draw(Results(), SECTION, "none"))]
    assert texts[0] == "latency: none"
