"""`podwirectl cleanup`: take off this node what the daemon leaves in place when it ends."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.store_index import clear_index
from ctl.options import DONE, FAILED, Files, files_of, printable, warn
from daemon.cni_server.listener import is_served
from daemon.config import DATA_FILES
from daemon.config.schema import Settings
from daemon.journal import Journal, Record, previous_file
from daemon.log import Log
from daemon.options import Unusable, add_config, settings_of
from daemon.routing.cleanup import CAUSE, clean_up
from daemon.sources import open_client
from daemon.sources.remote import SourceError
from daemon.status import AnotherDaemon, StatusFile

DESCRIPTION = """\
Remove from this node what the daemon leaves in place when it ends: routes to other nodes' pods, the
VXLAN device, podwire's nftables tables unless a pod needs them, the CNI configuration, and what
this node published in Kubernetes or etcd.
Only objects with podwire's mark are removed. Pods stay, and lose their routes to other nodes."""
EPILOG = """\
Stop the daemon first. What was removed is printed, and recorded in the journal; a second run finds
nothing. The daemon's configuration stays, and without --data store and journal stay too.

exit codes: 0 nothing is left; 1 something could not be removed, or a daemon runs; 2 wrong usage
"""
_SHOWN = 10
"""Routes that are named; of more than these, the number is printed."""
_STORE = re.compile(
    r"podwire\.db(\.lock|\.new|\.replacing|\.damaged-\d{8}T\d{6}Z(\.\d+)?)?(-wal|-shm|-journal)?"
)
"""The database, what SQLite and podwire keep beside it, and damaged ones that were set aside."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config(parser)
    words = "remove store, journal, status and socket, too: pods that run lose their addresses"
    parser.add_argument("--data", action="store_true", help=words)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Remove, and print what was removed; the exit status."""
    if not options.yes and not _confirmed():
        return FAILED
    settings, files = settings_of(options.config), files_of(options)
    removed: list[Record] = []
    gone: list[Path] = []
    with _no_daemon(files), closing(Journal(files.journal, files.journal_bytes)) as journal:
        published = list(_leave(settings, removed))
        faults = clean_up(files.conflist, files.data_dir, removed.append)
        if options.data and not faults:
            gone += _remove_data(files)
        else:
            journal.write(removed)
    if options.data and not faults:
        # Last: until here it kept other daemons away.
        files.status.with_name(f"{files.status.name}.lock").unlink(missing_ok=True)
        _remove_empty({files.status.parent, files.socket.parent})
    lines = [*_describe(removed), *(printable(f"removed {path}") for path in gone)]
    print("\n".join(lines) or "nothing was left")
    for fault in (*published, *faults):
        warn(f"not removed: {printable(fault)}")
    return FAILED if published or faults else DONE


def _remove_data(files: Files) -> Iterator[Path]:
    """Remove the daemon's files and sockets, no other kind; yields each. Raises OSError."""
    found = sorted(p for p in files.data_dir.glob("podwire.db*") if _STORE.fullmatch(p.name))
    names = (*found, *(files.data_dir / name for name in DATA_FILES))
    places = (files.journal, previous_file(files.journal), files.status, files.socket)
    for path in (*names, *places):
        if not path.is_symlink() and (path.is_file() or path.is_socket()):
            path.unlink()
            yield path
    clear_index(DEFAULT_INDEX)
    _remove_empty([files.data_dir])


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _leave(settings: Settings | None, removed: list[Record]) -> Iterator[str]:
    """Withdraw what this node published, so that other nodes drop it; yields why it cannot be."""
    if settings is None or settings.source.static:
        return
    try:
        for thing in open_client(settings, Log("error")).leave():
            removed.append(Record(time.time(), "removed", thing, CAUSE))
    except SourceError as error:
        yield f"what this node published: {error}"


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        warn("nothing was removed: no terminal to ask on; give --yes to confirm")
        return False
    answer = input("Cut this node's pods off from those of other nodes? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def _no_daemon(files: Files) -> Iterator[None]:
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


def _describe(removed: list[Record]) -> Iterator[str]:
    routes = [r for r in removed if r.object.startswith("route ")]
    hidden = routes[_SHOWN:]
    for record in removed:
        if record in hidden:
            continue
        was = f": {record.before}" if record.before else ""
        yield printable(f"removed {record.object}{was}")
        if hidden and record is routes[_SHOWN - 1]:
            yield f"removed {len(hidden)} more routes"
