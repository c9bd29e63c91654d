"""Rounds in which every contender attaches and detaches a pod, or many at once, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from tests.bench.checks import (
    Baseline,
    check_attached,
    check_distinct,
    check_gone,
    read_baseline,
)
from tests.bench.contender import Contender, Cost
from tests.bench.results import Figure, Results
from tests.bench.sizes import BURST_PODS, PODS
from tests.bench.world import World

T = TypeVar("T")

Say = Callable[[str], None]
"""Tells the operator how far it is."""


@contextmanager
def in_use(world: World, contenders: Sequence[Contender]) -> Iterator[dict[Contender, Baseline]]:
    """Each node with one pod attached for the duration; what the nodes look like then."""
    with ExitStack() as stack:
        baselines = {}
        for contender in contenders:
            pod = world.pods(f"{contender.host.label}-kept", 1)[0]
            attached, _ = contender.add(pod)
            stack.callback(contender.delete, attached)
            check_attached(world, contender, attached)
            baselines[contender] = read_baseline(contender)
        yield baselines


def in_turns(contenders: Sequence[T], number: int) -> list[T]:
    """The contenders, each first as often as any other: the first has what the last left behind."""
    start = number % len(contenders)
    return [*contenders[start:], *contenders[:start]]


class Rounds:
    """Measures ADD and DEL of contenders for one case of a section."""

    def __init__(self, world: World, results: Results, section: str, case: str) -> None:
        self._world, self._results = world, results
        self._section, self._case = section, case

    def run(self, contender: Contender, baseline: Baseline, number: int) -> None:
        """One ADD and one DEL, checked. The first round only warms up."""
        pod = self._world.pods(contender.label, PODS)[number % PODS]
        before = contender.background_cpu()
        attached, add = contender.add(pod)
        check_attached(self._world, contender, attached)
        between = contender.background_cpu()
        delete = contender.delete(attached)
        check_gone(contender, baseline, [attached])
        after = contender.background_cpu()
        if number:
            self._record(contender, "ADD", add, between - before)
            self._record(contender, "DEL", delete, after - between)

    def _record(self, contender: Contender, verb: str, cost: Cost, background: float) -> None:
        section, case = self._section, self._case
        wall, cpu = Figure(section, case, verb), Figure(section, case, f"{verb} CPU")
        self._results.add(wall, contender.label, cost.wall * 1e3)
        self._results.add(cpu, contender.label, (cost.cpu + background) * 1e3)


def takes_part(contender: Contender, number: int) -> bool:
    """Whether it is the contender's turn in a round; all warm up."""
    return number == 0 or number % contender.stride == 0


def one_burst(
    world: World, results: Results, section: str, contender: Contender, baseline: Baseline
) -> None:
    """Many ADDs, then many DELs, some at once, checked."""
    pods = world.pods(contender.label, BURST_PODS)
    before = contender.background_cpu()
    attached, add = contender.add_many(pods)
    for one in attached:
        check_attached(world, contender, one)
    check_distinct(contender, attached)
    between = contender.background_cpu()
    delete = contender.delete_many(attached)
    check_gone(contender, baseline, attached)
    after = contender.background_cpu()
    case = contender.network.case
    for verb, cost, background in (
        ("ADD", add, between - before),
        ("DEL", delete, after - between),
    ):
        name = f"{BURST_PODS} {verb}s"
        cpu = (cost.cpu + background) * 1e3 / BURST_PODS
        results.add(Figure(section, case, name), contender.label, cost.wall * 1e3)
        results.add(Figure(section, case, f"{name}, CPU of each"), contender.label, cpu)
        if cost.each:
            each = [wall * 1e3 for wall in cost.each]
            results.add(Figure(section, case, f"{name}, one of them"), contender.label, *each)
