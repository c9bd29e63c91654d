"""`podwirectl cleanup`: take off this node what the daemon leaves in place when it ends."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from ctl.options import DONE, FAILED, Files, files_of, printable, warn
from daemon.cni_server.listener import is_served
from daemon.config import DATA_FILES, DEFAULT_CONFLIST
from daemon.config.schema import Settings
from daemon.files import remove_empty, remove_files
from daemon.journal import Journal, Record, previous_file
from daemon.log import Log
from daemon.options import (
    Unusable,
    add_config,
    path_from_environment,
    settings_of,
)
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
_JOURNAL_BYTES = 16 << 20
_STORE = "podwire.db*"
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
    data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    socket = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
    conflist, size = DEFAULT_CONFLIST, _JOURNAL_BYTES
    if settings is not None:
        data_dir, size = settings.data_dir, settings.journal.max_bytes
        conflist = settings.conflist.path if settings.conflist else conflist
        socket = settings.socket
    removed: list[Record] = []
    gone: list[Path] = []
    with _no_daemon(files.status, socket), closing(Journal(files.journal, size)) as journal:
        published = list(_leave(settings, removed))
        faults = clean_up(conflist, data_dir, removed.append)
        if options.data and not faults:
            gone += remove_files(_data_files(data_dir, files), [socket])
            remove_empty([data_dir])
        else:
            journal.write(removed)
    if options.data and not faults:
        # Last: until here it kept other daemons away.
        files.status.with_name(f"{files.status.name}.lock").unlink(missing_ok=True)
        remove_empty({files.status.parent, socket.parent})
    lines = [*_describe(removed), *(printable(f"removed {path}") for path in gone)]
    print("\n".join(lines) or "nothing was left")
    for fault in (*published, *faults):
        warn(f"not removed: {printable(fault)}")
    return FAILED if published or faults else DONE


def _data_files(data_dir: Path, files: Files) -> Iterator[Path]:
    yield from sorted(data_dir.glob(_STORE))
    yield from (data_dir / name for name in DATA_FILES)
    yield from (files.journal, previous_file(files.journal), files.status)


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
def _no_daemon(status: Path, socket: Path) -> Iterator[None]:
    """Keep routing daemons from running meanwhile. Raises Unusable where any daemon runs."""
    with ExitStack() as held:
        if status.parent.exists():
            try:
                held.enter_context(closing(StatusFile(status)))
            except AnotherDaemon as error:
                raise Unusable(f"a daemon runs (it holds {status}.lock): stop it first") from error
        if is_served(socket):  # one that serves calls alone holds no status
            raise Unusable(f"a daemon runs (it answers at {socket}): stop it first")
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
