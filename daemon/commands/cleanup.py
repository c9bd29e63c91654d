"""Taking off a node what the daemon leaves in place when it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from daemon.config.schema import Settings
from daemon.journal import Journal, Record
from daemon.log import Log, printable
from daemon.node_files import Files, no_daemon, remove_data, remove_lock
from daemon.routing.cleanup import clean_up
from daemon.sources import open_client
from daemon.sources.remote import SourceError

_SHOWN = 10
"""Routes that are named; of more than these, the number is printed."""


@dataclass(frozen=True, slots=True)
class Removed:
    """records: objects of the kernel and of clusters; files: of the daemon. faults: what stays."""

    records: Sequence[Record]
    files: Sequence[Path]
    faults: Sequence[str]

    def describe(self) -> Iterator[str]:
        """A line for each object that was removed; of many routes, for the first ones."""
        routes = [r for r in self.records if r.object.startswith("route ")]
        hidden = routes[_SHOWN:]
        for record in self.records:
            if record in hidden:
                continue
            was = f": {record.before}" if record.before else ""
            yield printable(f"removed {record.object}{was}")
            if hidden and record is routes[_SHOWN - 1]:
                yield f"removed {len(hidden)} more routes"
        yield from (printable(f"removed {path}") for path in self.files)


def clean_node(settings: Settings | None, files: Files, cause: str, *, data: bool) -> Removed:
    """Remove what the daemon made on this node, and with `data` its files; what was removed.

    cause: for the journal. Raises Unusable where a daemon runs, OSError.
    """
    records: list[Record] = []
    gone: list[Path] = []
    with no_daemon(files), closing(Journal(files.journal, files.journal_bytes)) as journal:
        published = list(_leave(settings, cause, records))
        faults = clean_up(files.conflist, files.data_dir, cause, records.append)
        if data and not faults:
            gone += remove_data(files)
        else:
            journal.write(records)
    if data and not faults:
        remove_lock(files)
    return Removed(records, gone, (*published, *faults))


def _leave(settings: Settings | None, cause: str, records: list[Record]) -> Iterator[str]:
    """Withdraw what this node published, so that other nodes drop it; yields why it cannot be."""
    if settings is None or settings.source.static:
        return
    try:
        for thing in open_client(settings, Log("error")).leave():
            records.append(Record(time.time(), "removed", thing, cause))
    except SourceError as error:
        yield f"what this node published: {error}"
