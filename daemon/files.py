"""Files that others read while podwire replaces them: a reader sees the old one or the new one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ipam.files import sync_directory


def replace_file(path: Path, data: bytes, mode: int, *, durable: bool = False) -> None:
    """Write a file beside `path` and rename it into place. Raises OSError.

    durable: also against power loss (fsync(2)). One writer at a time: what an earlier one that was
    killed left behind is overwritten.
    """
    # Container runtimes take files by their ending; this one has none of theirs.
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    try:
        _write(fresh, data, mode, durable)
        os.replace(fresh, path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def _write(path: Path, data: bytes, mode: int, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask
        file.write(data)
        file.flush()
        if durable:
            os.fsync(fd)
