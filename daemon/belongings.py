"""The files that a daemon has for itself: store, journal, status, socket. Here they are removed."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from daemon.config import DATA_FILES

_STORE = "podwire.db*"
"""The database, what SQLite and podwire keep beside it, and damaged ones that were set aside."""


def remove_belongings(data_dir: Path, journal: Path, status: Path, socket: Path) -> Iterator[Path]:
    """Remove them, then folders that are empty without them; each that was there.

    Nothing else in those folders is touched. The status file's lock stays: see `remove_lock`.
    Raises OSError.
    """
    files = [
        *sorted(data_dir.glob(_STORE)),
        *(data_dir / name for name in DATA_FILES),
        journal,
        journal.with_name(f"{journal.name}.1"),
        status,
    ]
    for path in files:
        if _is_kind(path, stat.S_ISREG):
            path.unlink()
            yield path
    if _is_kind(socket, stat.S_ISSOCK):
        socket.unlink()
        yield socket
    with suppress(OSError):  # others have files there, or it is no folder
        data_dir.rmdir()


def remove_lock(status: Path, socket: Path) -> None:
    """Remove what kept other daemons away meanwhile, and the folders if they are empty then."""
    status.with_name(f"{status.name}.lock").unlink(missing_ok=True)
    for folder in {status.parent, socket.parent}:
        with suppress(OSError):
            folder.rmdir()


def _is_kind(path: Path, is_kind: Callable[[int], bool]) -> bool:
    try:
        return is_kind(path.lstat().st_mode)
    except OSError:
        return False
