"""The daemon's files on this node: where they are, that no daemon uses them, and removing them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_INDEX, DEFAULT_SOCKET
from cni_plugin.store_index import clear_index
from daemon.config import DATA_FILES, DEFAULT_CONFLIST
from daemon.options import Unusable, path_from_environment, settings_of

_STORE = re.compile(
    r"podwire\.db(\.lock|\.new|\.replacing|\.damaged-\d{8}T\d{6}Z(\.\d+)?)?(-wal|-shm|-journal)?"
)
"""The database, what SQLite and podwire keep beside it, and damaged ones that were set aside."""


@dataclass(frozen=True, slots=True)
class Files:
    """The places of the daemon's files. journal_bytes: what bounds the journal."""

    data_dir: Path
    socket: Path
    journal: Path
    status: Path
    conflist: Path = DEFAULT_CONFLIST
    journal_bytes: int = 16 << 20


def files_of(config: Path | None) -> Files:
    """The files of the daemon that this configuration, or the default one, describes.

    Without a configuration the default paths. Raises Unusable.
    """
    found = settings_of(config)
    if found is None:
        data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
        socket = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
        return Files(data_dir, socket, data_dir / "journal.jsonl", socket.parent / "status.json")
    conflist = found.conflist.path if found.conflist else DEFAULT_CONFLIST
    journal = found.journal
    return Files(
        found.data_dir, found.socket, journal.path, found.status_file, conflist, journal.max_bytes
    )


@contextmanager
def no_daemon(files: Files) -> Iterator[None]:
    """Keep routing daemons from running meanwhile. Raises Unusable where any daemon runs."""
    from daemon.cni_server.listener import is_served
    from daemon.status import AnotherDaemon, StatusFile

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


def remove_data(files: Files) -> Iterator[Path]:
    """Remove the daemon's files and sockets, no other kind; yields each. Raises OSError.

    `remove_lock` removes the last one, once no daemon needs to be kept away any more.
    """
    from daemon.journal import previous_file

    found = sorted(p for p in files.data_dir.glob("podwire.db*") if _STORE.fullmatch(p.name))
    names = (*found, *(files.data_dir / name for name in DATA_FILES))
    places = (files.journal, previous_file(files.journal), files.status, files.socket)
    for path in (*names, *places):
        if not path.is_symlink() and (path.is_file() or path.is_socket()):
            path.unlink()
            yield path
    clear_index(DEFAULT_INDEX)
    _remove_empty([files.data_dir])


def remove_lock(files: Files) -> None:
    """Remove what kept other daemons away, and folders that are empty now."""
    files.status.with_name(f"{files.status.name}.lock").unlink(missing_ok=True)
    _remove_empty({files.status.parent, files.socket.parent})


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
