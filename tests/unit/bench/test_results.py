"""Results as they are judged, tabled, drawn and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import write_section
from tests.bench.results import BY_HAND, FLOOR, PEER, PODWIRE, STANDALONE, Figure, Results
from tests.bench.routing.heal import FEW, HEAL, MANY
from tests.bench.routing.overlay import THROUGHPUTS
from tests.bench.routing.peers import APPLIED
from tests.bench.sections import BURST, GROWTH, IDLE, LATENCY, SECTIONS, growth_case
from tests.bench.table import NOTHING, render_columns, render_results, render_verdicts, show
from tests.bench.targets import TARGETS, Verdict, judge

ADD = Figure(LATENCY, "bridge", "ADD")
ALL = frozenset(SECTIONS)


@pytest.fixture
def results() -> Results:
    made = Results()
    made.add(ADD, FLOOR, 0.7)
    made.add(ADD, PODWIRE, 1.0, 2.0, 9.0)
    made.add(ADD, PEER, 8.0, 10.0, 7.0)
    return made


def verdicts(results: Results, sections: frozenset[str] = ALL) -> dict[str, Verdict]:
    return {v.target.what: v for v in judge(results, sections)}


def test_ratio_is_of_medians(results: Results) -> None:
    assert results.ratio(ADD) == 2.0 / 8.0
    assert results.ratio(Figure(LATENCY, "ptp", "ADD")) is None


def test_worst_ratio_leaves_out_what_was_not_measured(results: Results) -> None:
    ptp, absent = Figure(LATENCY, "ptp", "ADD"), Figure(LATENCY, "none", "ADD")
    results.add(ptp, PODWIRE, 3.0)
    results.add(ptp, PEER, 4.0)
    assert results.worst_ratio([ADD, ptp, absent]) == 0.75
    assert results.worst_ratio([absent]) is None


def test_a_target_is_reached_at_its_limit_and_missed_above(results: Results) -> None:
    assert verdicts(results)["ADD bridge"].reached
    results.add(ADD, PODWIRE, 2.2, 2.2)
    verdict = verdicts(results)["ADD bridge"]
    assert verdict.value == pytest.approx(0.275)
    assert not verdict.reached


def test_what_was_not_measured_is_not_reached() -> None:
    found = verdicts(Results())
    assert len(found) == len(TARGETS)
    assert not any(verdict.reached for verdict in found.values())


def test_only_targets_of_sections_that_were_run_are_judged(results: Results) -> None:
    sections = {v.target.section for v in judge(results, frozenset({BURST}))}
    assert sections == {BURST}


def test_burst_and_growth_targets_find_their_figures(results: Results) -> None:
    burst = Figure(BURST, "bridge ipMasq", "100 DELs")
    results.add(burst, PODWIRE, 200.0)
    results.add(burst, PEER, 5000.0)
    for level, milliseconds in ((0, 1.0), (30_000, 1.2)):
        results.add(Figure(GROWTH, growth_case(level), "ADD"), PODWIRE, milliseconds)
    found = verdicts(results)
    assert found["burst of DELs, ipMasq"].value == 0.04
    assert found["podwire's ADD at 30,000 allocations against 0"].value == pytest.approx(1.2)


def test_without_a_daemon_podwire_is_the_standalone_path(results: Results) -> None:
    assert verdicts(results)["standalone ADD bridge"].value == 2.0
    results.add(ADD, STANDALONE, 110.0)
    results.add(IDLE, PODWIRE, 40.0)
    assert verdicts(results)["standalone ADD bridge"].value == 110.0
    assert verdicts(results)["podwired, idle"].reached


def test_routing_is_judged_by_the_floor_and_an_overlay_by_hand_by_that(results: Results) -> None:
    results.add(APPLIED, FLOOR, 200.0)
    results.add(APPLIED, PODWIRE, 500.0, 900.0, 400.0)
    for figure, ours in zip(THROUGHPUTS, (9.7, 9.6), strict=True):
        results.add(figure, BY_HAND, 10.0)
        results.add(figure, PODWIRE, ours)
    found = verdicts(results)
    assert found["all peers from nothing, against the floor"].value == 2.5
    throughput = found["throughput, against an overlay by hand (worst)"]
    assert throughput.value == pytest.approx(0.96)
    assert not throughput.reached  # at least


def test_the_slowest_of_all_kinds_of_damage_counts(results: Results) -> None:
    results.add(Figure(HEAL, FEW, "route deleted"), PODWIRE, 10.0, 20.0)
    results.add(Figure(HEAL, FEW, "device deleted"), PODWIRE, 15.0, 1001.0)
    results.add(Figure(HEAL, MANY, "device deleted"), PODWIRE, 5000.0)
    verdict = verdicts(results)[f"damage healed, {FEW} (slowest of all kinds)"]
    assert (verdict.value, verdict.reached) == (1001.0, False)


def test_results_table_has_a_column_for_each_contender_measured(results: Results) -> None:
    results.add(Figure("memory", "shim", "size", "bytes"), PODWIRE, 23632.0)
    head, add, shim = render_results(results).splitlines()
    assert head.split() == [FLOOR, PEER, PODWIRE, "ratio"]
    assert add.split("  ")[0] == "latency: bridge: ADD, ms"
    assert add.split()[4:] == ["0.70", "8.00", "(10.0)", "2.00", "(9.00)", "0.25"]
    assert shim.split()[-4:] == [NOTHING, NOTHING, "23,632", NOTHING]


def test_verdict_table_says_reached_missed_and_not_measured(results: Results) -> None:
    results.add(Figure(LATENCY, "ptp dual stack", "ADD"), PODWIRE, 100.0)
    results.add(Figure(LATENCY, "ptp dual stack", "ADD"), PEER, 1000.0)
    results.add(ADD, STANDALONE, 186.0)
    lines = {line.partition("  ")[0]: line for line in
             render_verdicts(judge(results, ALL)).splitlines()}  # fmt: skip
    assert lines["ADD bridge"].split()[2:] == ["0.25", "0.25", "yes"]
    assert lines["ADD ptp dual stack"].split()[4:] == ["0.01", "0.10", "NO"]
    assert lines["burst of DELs"].split()[-3:] == [NOTHING, "not", "measured"]
    assert lines["standalone ADD bridge"].endswith("NO (an aim)")


def test_columns_are_aligned() -> None:
    assert render_columns([["a", "1"], ["long", "22"]]) == "a      1\nlong  22"


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.12"), (12.34, "12.3"), (123.4, "123"), (12345.0, "12,345")]
)
def test_figures_show_three_digits(value: float, text: str) -> None:
    assert show(value) == text


def test_json_has_samples_and_ratio(results: Results) -> None:
    results.add(Figure(BURST, "bridge", "100 ADDs"), PODWIRE, 1.0)
    (figure,) = json.loads(json.dumps(results.to_json(LATENCY)))
    assert (figure["case"], figure["unit"], figure["ratio"]) == ("bridge", "ms", 0.25)
    assert figure["contenders"][PODWIRE]["samples"] == [1.0, 2.0, 9.0]
    assert figure["contenders"][PODWIRE]["median"] == 2.0


def test_a_partial_run_leaves_the_other_sections_as_they_were(
    results: Results, tmp_path: Path
) -> None:
    facts = {"podwire": "0.1.0", "reference": "v1.9.1 in /", "kernel": "6.18"}
    folder = tmp_path / "bench"
    results.add(Figure(BURST, "bridge", "100 DELs"), PODWIRE, 200.0)
    for section in (LATENCY, BURST):
        write_section(folder, section, results, facts, judge(results, ALL))
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(first) == ["burst.json", "burst.svg", "latency.json", "latency.svg"]

    again = Results()
    again.add(Figure(BURST, "bridge", "100 DELs"), PODWIRE, 150.0)
    write_section(folder, BURST, again, facts, judge(again, frozenset({BURST})))
    second = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in first if first[name] != second[name]} == {"burst.json", "burst.svg"}
    (figure,) = json.loads(second["burst.json"])["figures"]
    assert figure["contenders"][PODWIRE]["samples"] == [150.0]


def test_a_section_is_stored_with_its_own_targets(results: Results, tmp_path: Path) -> None:
    facts = {"podwire": "0.1.0", "reference": "v1.9.1 in /", "kernel": "6.18"}
    write_section(tmp_path, LATENCY, results, facts, judge(results, ALL))
    stored = json.loads((tmp_path / "latency.json").read_text())
    assert stored["machine"] == facts
    (add,) = (target for target in stored["targets"] if target["what"] == "ADD bridge")
    assert (add["value"], add["reached"]) == (0.25, True)
    assert len(stored["targets"]) == sum(target.section == LATENCY for target in TARGETS)
