"""`python -m tests.bench`; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench.lineup import Lineup
from tests.bench.machine import measure_harness, read_facts
from tests.bench.plot import draw
from tests.bench.programs import find_programs
from tests.bench.results import Results
from tests.bench.sections import CALLS, HARNESS, SECTIONS
from tests.bench.sizes import FULL, QUICK
from tests.bench.table import render_results, render_verdicts
from tests.bench.targets import Verdict, judge
from tests.bench.world import World

INTERRUPTED = 130


def parse_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests.bench", description="podwire beside its peers")
    parser.add_argument("--quick", action="store_true", help="few rounds: a first look")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; repeatable")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), metavar="FOLDER")
    parser.add_argument("--kindnet", type=Path, metavar="PATH", help="cni-kindnet, if built by you")
    return parser.parse_args(words)


class Progress:
    """One line that changes on a terminal; elsewhere a line for each stage."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stage = ""

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        if sys.stderr.isatty():
            print(f"\r\x1b[K{seconds:4.0f} s  {text}", end="", file=sys.stderr, flush=True)
        elif (stage := text.partition(": ")[0]) != self._stage:
            self._stage = stage
            print(f"{seconds:4.0f} s  {stage}", file=sys.stderr, flush=True)

    def end(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, sections: list[str]) -> tuple[Results, dict[str, Any]]:
    """Run the sections; results and the machine's facts."""
    build_dir, say = options.output.parent, Progress()
    build_dir.mkdir(parents=True, exist_ok=True)
    programs = find_programs(
        options.kindnet, build_dir / "bench-tools", kindnet_plays=any(s in CALLS for s in sections)
    )
    for note in programs.notes:
        print(f"note: {note}")
    quick = options.quick or programs.daemon is None
    sizes = QUICK if quick else FULL
    facts = read_facts(programs, build_dir) | {"notes": programs.notes, "quick": quick}
    results = Results()
    results.add(HARNESS, "floor", *measure_harness(sizes.rounds))
    with World(build_dir) as world:
        for section in sections:
            SECTIONS[section](Lineup(world, programs), results, sizes, say)
        say("removing namespaces")
    say.end()
    return results, facts | {"load_after": os.getloadavg()}


def report(results: Results, facts: dict[str, Any], verdicts: list[Verdict]) -> None:
    """Print the tables."""
    print("\n".join(f"{key}: {value}" for key, value in facts.items() if key != "notes"))
    print("\nmedian (p99); ratio: podwire's by the reference's, else by hand, else the floor's")
    print(render_results(results))
    print(f"\n{render_verdicts(verdicts)}")


def write_section(
    folder: Path, section: str, results: Results, facts: dict[str, Any], verdicts: list[Verdict]
) -> None:
    """Write a section's figures, targets and picture in place of those of an earlier run."""
    targets = [
        {
            "what": v.target.what, "limit": v.target.limit, "at_least": v.target.at_least,
            "must": v.target.must, "value": v.value, "reached": v.reached,
        }
        for v in verdicts if v.target.section == section
    ]  # fmt: skip
    document = {"machine": facts, "figures": results.to_json(section), "targets": targets}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{section}.json").write_text(json.dumps(document, indent=1))
    title = f"podwire {facts['podwire']} and reference plugins {facts['reference'].split()[0]}"
    draw(results, section, f"{title}, Linux {facts['kernel']}").savefig(folder / f"{section}.svg")


def main(words: list[str]) -> int:
    options = parse_arguments(words)
    if os.geteuid() != 0:
        print("network namespaces need root", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    sections = [name for name in SECTIONS if not options.only or name in options.only]
    try:
        results, facts = measure(options, sections)
    except KeyboardInterrupt:
        print("\ninterrupted; all namespaces are removed", file=sys.stderr)
        return INTERRUPTED
    verdicts = judge(results, frozenset(sections))
    report(results, facts, verdicts)
    for section in (HARNESS.section, *sections):
        write_section(options.output, section, results, facts, verdicts)
    print(f"\nwritten: {options.output}/*.json, *.svg of {', '.join(sections)}")
    missed = [v for v in verdicts if v.target.must and not v.reached]
    return 1 if options.check and missed else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
