"""One hop of a packet's way, and the whole way, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctl.output import table
from ctl.trace.probe import Observed
from daemon.log import printable


@dataclass(slots=True)
class Hop:
    """One place. what: what happens there. fault: why packets end there, empty where that is open.

    sent, answers: packets that were seen there; None where none are counted there.
    verdict: passed, dropped, not reached, unknown. advice: how to go on where nothing came back.
    hint: what may take packets there, where nothing certain is found.
    """

    where: str
    what: str
    fault: str = ""
    sent: int | None = None
    answers: int | None = None
    verdict: str = "unknown"
    advice: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the packets. reached: None where nothing was sent.

    summary: where they end, and why, in a sentence. is_located: whether that is known; else they
    left, and nothing came back.
    """

    reached: bool | None
    summary: str
    is_located: bool = True


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way. source, to: as texts. probe: what was seen."""

    source: str
    to: str
    hops: tuple[Hop, ...]
    verdict: Verdict
    probe: Observed | None = None


def as_json(trace: Trace) -> dict[str, object]:
    """The shape that docs/operations.md documents."""
    probe = trace.probe
    return {
        "source": trace.source,
        "destination": trace.to,
        "reached": trace.verdict.reached,
        "result": probe.result if probe else None,
        "seconds": probe.seconds if probe else None,
        "summary": trace.verdict.summary,
        "hops": [
            {
                "hop": number,
                "where": hop.where,
                "what": hop.what,
                "verdict": hop.verdict,
                "why": hop.fault or None,
                "do": hop.advice or None,
                "sent": hop.sent,
                "answers": hop.answers,
            }
            for number, hop in enumerate(trace.hops, 1)
        ],
    }


def render(trace: Trace) -> str:
    """A line for each hop, and the outcome."""
    header = ("HOP", "WHERE", "WHAT", "VERDICT", "SENT", "ANSWERS")
    head = printable(f"{trace.source} -> {trace.to}")
    return f"{head}\n{table(header, _rows(trace.hops))}\n{printable(trace.verdict.summary)}"


def _rows(hops: Sequence[Hop]) -> Iterator[tuple[str, ...]]:
    for number, hop in enumerate(hops, 1):
        what = f"{hop.what}: {hop.fault}" if hop.fault and hop.what else hop.what or hop.fault
        counts = ("" if n is None else str(n) for n in (hop.sent, hop.answers))
        yield (str(number), hop.where, what, hop.verdict, *counts)
