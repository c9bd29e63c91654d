"""What the journal says of repairs and changes: one record an object, one a node where many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby

from daemon.journal import Action, Record
from daemon.routing.mirror import Repair
from kernel.describe import name_of, state_of
from kernel.model import Entry, Route

_EACH = 64
"""So many repairs at once have a record each; of more, there is one for each node."""


def records_of(repairs: Sequence[Repair]) -> list[Record]:
    """Changes of the plan by node, repairs each by itself unless there are many."""
    now = time.time()
    found = [r for r in repairs if r.cause]
    planned = [r for r in repairs if not r.cause]
    alone = found if len(found) <= _EACH else [r for r in found if not r.node]
    alone = [*alone, *(r for r in planned if not r.node)]
    together = [r for r in planned if r.node]
    together += [r for r in found if r.node] if len(found) > _EACH else []
    more = []
    if len(alone) > _EACH:
        alone, rest = alone[:_EACH], alone[_EACH:]
        more = [Record(now, "removed", f"{len(rest)} more entries", "they lead to no node")]
    return [*(_alone(r, now) for r in alone), *more, *_together(together, now)]


def _alone(repair: Repair, now: float) -> Record:
    entry = repair.want or repair.have
    name = name_of(entry) if entry else ""
    before, after = state_of(repair.have), state_of(repair.want)
    cause = repair.cause or (f"leads to {repair.node}" if repair.node else "leads to no node")
    return Record(now, _action([repair]), name, cause, before, after)


def _together(repairs: Iterable[Repair], now: float) -> list[Record]:
    def place(repair: Repair) -> tuple[str, str]:
        return repair.node, repair.cause

    records = []
    for (node, cause), group in groupby(sorted(repairs, key=place), place):
        members = list(group)
        routes = [r for r in members if isinstance(r.want or r.have, Route)] or members
        prefixes = [str(e.dst) for e in map(_either, routes) if isinstance(e, Route)]
        name = " ".join([f"node {node}", *prefixes])
        texts = (_tell(r.have for r in routes), _tell(r.want for r in routes))
        records.append(Record(now, _action(members), name, cause or "the plan", *texts))
    return records


def _either(repair: Repair) -> Entry | None:
    return repair.want or repair.have


def _tell(entries: Iterable[Entry | None]) -> str:
    return "; ".join(filter(None, map(state_of, entries)))


def _action(repairs: Sequence[Repair]) -> Action:
    if all(r.want is None for r in repairs):
        return "removed"
    if repairs[0].cause:
        return "restored"
    return "added" if all(r.have is None for r in repairs) else "changed"
