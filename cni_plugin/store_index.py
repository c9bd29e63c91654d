"""The stores that this node's attachments are in: a symbolic link to each, in a folder of /run.

`dataDir` or PODWIRE_DATA_DIR may be others than at ADD; DEL, CHECK and GC find its store here. A
reboot empties the folder, and no attachment outlives a reboot.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from ipam.files import Files


def enter_store(index: Path, folder: Path) -> None:
    """Enter the folder of a store; again is no error. Raises OSError."""
    entry = index / (_prefix() + hashlib.sha256(os.fsencode(folder)).hexdigest()[:16])
    try:
        os.symlink(folder, entry)
    except FileExistsError:
        return
    except FileNotFoundError:
        index.parent.mkdir(mode=0o700, exist_ok=True)
        index.mkdir(mode=0o700, exist_ok=True)
        os.symlink(folder, entry)


def find_stores(index: Path, own: Path) -> list[Path]:
    """The folders of the stores that there are, the configuration's own first; or that alone."""
    folders = dict.fromkeys((own, *(Path(os.readlink(entry)) for entry in _entries(index))))
    return [f for f in folders if Files(f).database.exists()] or [own]


def has_several(index: Path) -> bool:
    """Whether more than one store is entered; every ADD asks."""
    prefix = _prefix()
    try:
        return sum(name.startswith(prefix) for name in os.listdir(index)) > 1
    except OSError:
        return False


def clear_index(index: Path) -> None:
    """Remove this node's entries. Raises OSError."""
    for entry in _entries(index):
        entry.unlink()
    with suppress(OSError):  # another node's are left, or it is not there
        index.rmdir()


def _entries(index: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(index))
    except OSError:
        return []
    return [index / name for name in names if name.startswith(_prefix())]


def _prefix() -> str:
    # Several nodes of one machine, each in a network namespace, share the folder.
    return f"{os.stat('/proc/thread-self/ns/net').st_ino}-"
