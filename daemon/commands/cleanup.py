"""Taking off a node what the daemon leaves in place when it ends."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.store_index import clear_index
from daemon.cni_server.listener import is_served
from daemon.config import DATA_FILES
from daemon.config.schema import Settings
from daemon.files import fresh_name
from daemon.journal import Journal, Record, previous_file
from daemon.log import Log, printable
from daemon.options import NodeFiles, Unusable
from daemon.probes.peers_file import peers_file_of
from daemon.routing.cleanup import clean_up
from daemon.sources import describe_entry, open_client
from daemon.sources.remote import SourceError
from daemon.status import AnotherDaemon, StatusFile

_STORE = re.compile(
    r"podwire\.db(\.lock|\.new|\.replacing|\.damaged-\d{8}T\d{6}Z(\.\d+)?)?(-wal|-shm|-journal)?"
)
"""The database, what SQLite and podwire keep beside it, and damaged ones that were set aside."""
_SHOWN = 10
"""Routes that are named; of more than these, the number is printed."""


@dataclass(frozen=True, slots=True)
class Removed:
    """records: objects of the kernel and of clusters; files: of the daemon.

    faults: what stays on this node. published: what stays in the cluster, why, and what becomes of
    it; empty where nothing does.
    """

    records: Sequence[Record]
    files: Sequence[Path]
    faults: Sequence[str]
    published: str = ""

    def describe(self) -> Iterator[str]:
        """A line for each object that was removed; of many routes, for the first ones."""
        routes = [r for r in self.records if r.object.startswith("route ")]
        hidden = routes[_SHOWN:]
        for record in self.records:
            if record in hidden:
                continue
            was = f": {record.before}" if record.before else ""
            if record.action == "changed":
                yield printable(f"set {record.object} back to {record.after}")
            else:
                yield printable(f"removed {record.object}{was}")
            if hidden and record is routes[_SHOWN - 1]:
                yield f"removed {len(hidden)} more routes"
        yield from (printable(f"removed {path}") for path in self.files)


def clean_node(settings: Settings | None, files: NodeFiles, cause: str, *, data: bool) -> Removed:
    """Remove what the daemon made on this node, and with `data` its files; what was removed.

    cause: for the journal. Raises Unusable where a daemon runs, OSError.
    """
    records: list[Record] = []
    gone: list[Path] = []
    with _no_daemon(files), closing(Journal(files.journal, files.journal_bytes)) as journal:
        published = _leave(settings, cause, records)
        faults = clean_up(files.conflist, files.data_dir, cause, records.append)
        if data and not faults:
            gone += _remove_data(files)
        else:
            journal.write(records)
    if data and not faults:
        _remove_lock(files)
    return Removed(records, gone, faults, published)


def _leave(settings: Settings | None, cause: str, records: list[Record]) -> str:
    """Withdraw what this node published, so that other nodes drop it; what stays, and why."""
    if settings is None or settings.source.static:
        return ""
    try:
        for thing in open_client(settings, Log("error")).leave():
            records.append(Record(time.time(), "removed", thing, cause))
    except SourceError as error:
        why = f"what this node published could not be withdrawn: {error}"
        until = "Other nodes keep their routes to this one until then"
        return f"{why}. {describe_entry(settings)}. {until}"
    return ""


@contextmanager
def _no_daemon(files: NodeFiles) -> Iterator[None]:
    """Keep routing daemons from running meanwhile. Raises Unusable where any daemon runs."""
    with ExitStack() as held:
        if files.status.parent.exists():
            try:
                held.enter_context(closing(StatusFile(files.status)))
            except AnotherDaemon as error:
                why = f"a daemon runs (it holds {files.status}.lock): stop it first"
                raise Unusable(why) from error
        if is_served(files.socket):  # one that serves calls alone holds no status
            raise Unusable(f"a daemon runs (it answers at {files.socket}): stop it first")
        yield


def _remove_data(files: NodeFiles) -> Iterator[Path]:
    """Remove the daemon's files and sockets, no other kind; yields each. Raises OSError.

    `_remove_lock` removes the last one, once no daemon needs to be kept away any more.
    """
    found = sorted(p for p in files.data_dir.glob("podwire.db*") if _STORE.fullmatch(p.name))
    names = (*found, *(files.data_dir / name for name in DATA_FILES))
    journals = (files.journal, previous_file(files.journal))
    places = (*journals, files.status, peers_file_of(files.status), files.socket)
    unfinished = map(fresh_name, (*names, *places))  # of a writer that was killed
    for path in (*names, *places, *unfinished):
        if not path.is_symlink() and (path.is_file() or path.is_socket()):
            path.unlink()
            yield path
    clear_index(DEFAULT_INDEX)
    _remove_empty([files.data_dir])


def _remove_lock(files: NodeFiles) -> None:
    """Remove what kept other daemons away, and folders that are empty now."""
    files.status.with_name(f"{files.status.name}.lock").unlink(missing_ok=True)
    _remove_empty({files.status.parent, files.socket.parent})


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
