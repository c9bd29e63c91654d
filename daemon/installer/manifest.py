"""The manifest: every file that podwire wrote or set aside outside of its own folders.

An entry is written before its file is touched, so whatever interrupts an installation, the next run
finds what was begun. One process at a time changes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from daemon.files import fresh_name, make_folder, replace_file

NAME = "install.json"
"""Below the data directory."""
SUFFIX = ".set-aside-by-podwire"
"""Of what was in the place of a file of podwire's; no runtime reads such a file."""
EXECUTABLE = 0o755
_VERSION = 1
_WAIT = 60.0
"""Seconds to wait for another process that changes the manifest."""


class ManifestFault(Exception):
    """The manifest cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A file of podwire's.

    digests: of what podwire put there; two while one takes the other's place. source: what it is
    a link to, or a copy of. set_aside: whether another's file was there before. mode: of a copy.
    """

    digests: tuple[str, ...]
    source: str
    copied: bool
    set_aside: bool = False
    mode: int = EXECUTABLE


@dataclass(slots=True)
class Manifest:
    """What is on the node. folder: the data directory that has the manifest.

    files: by path. conflists: where others' configurations were that are set aside.
    """

    folder: Path
    files: dict[Path, Placed] = field(default_factory=dict)
    conflists: list[Path] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is on the node."""
        return not self.files and not self.conflists

    def save(self) -> None:
        """Replace the manifest on disk, also against power loss. Raises OSError."""
        content = {
            "version": _VERSION,
            "files": {str(path): asdict(entry) for path, entry in self.files.items()},
            "conflists": [str(path) for path in self.conflists],
        }
        data = json.dumps(content, indent=1).encode() + b"\n"
        replace_file(self.folder / NAME, data, 0o600, durable=True)

    def remove(self) -> None:
        """Remove it, its lock, and what a writer that was killed left. Raises OSError."""
        path = self.folder / NAME
        for each in (path, self.folder / f"{NAME}.lock", fresh_name(path)):
            each.unlink(missing_ok=True)


def aside(path: Path) -> Path:
    """Where a file is that was set aside."""
    return path.with_name(path.name + SUFFIX)


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a data directory; an empty one where there is none. Raises ManifestFault."""
    path = folder / NAME
    try:
        raw = json.loads(path.read_bytes())
        if raw["version"] != _VERSION:
            why = f"it has version {raw['version']!r:.20}, this podwire knows {_VERSION}"
            raise ManifestFault(f"{path}: {why}; use the podwire that wrote it")
        return Manifest(
            folder,
            {Path(name): _placed(entry) for name, entry in raw["files"].items()},
            [Path(name) for name in raw["conflists"]],
        )
    except FileNotFoundError:
        return Manifest(folder)
    except OSError as error:
        raise ManifestFault(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = "restore it from a backup, or move it away and install again"
        raise ManifestFault(f"{path} is damaged ({error!r:.80}); {hint}") from error


def _placed(entry: dict[str, Any]) -> Placed:
    return Placed(**{**entry, "digests": tuple(entry["digests"])})


@contextmanager
def changing_manifest(folder: Path, wait: float = _WAIT) -> Iterator[Manifest]:
    """The manifest, while no other process changes it. wait: seconds for another to end.

    Raises ManifestFault, OSError.
    """
    make_folder(folder)
    lock = FileLock(folder / f"{NAME}.lock", timeout=wait, mode=0o600)
    try:
        with lock:
            yield load_manifest(folder)
    except Timeout as error:
        text = f"another process installs or removes podwire: it holds {lock.lock_file}"
        raise ManifestFault(text) from error


def digest_of(path: Path) -> str:
    """What tells a file's content, or a link's target, from others'; empty for nothing there.

    Raises OSError, also for what is neither file nor link.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(mode):
        return f"link:{os.readlink(path)}"
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR, "it is neither a file nor a link", str(path))
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
