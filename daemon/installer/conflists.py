"""CNI configurations of others beside podwire's: which a runtime reads, and setting them aside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from daemon.installer.manifest import Manifest, aside

_READ = (".conf", ".conflist", ".json")
"""Endings of the files that runtimes read; they take the first by name (libcni, ConfFiles)."""


def other_conflists(names: Iterable[str], own: str, leave: Sequence[str]) -> list[str]:
    """Of a folder's names those that runtimes read beside `own`, sorted.

    leave: patterns of those that do not count, as in a shell.
    """
    return sorted(
        name
        for name in names
        if name != own
        and name.endswith(_READ)
        and not any(fnmatchcase(name, pattern) for pattern in leave)
    )


def set_aside_conflists(manifest: Manifest, paths: Sequence[Path]) -> None:
    """Rename configurations so that no runtime reads them. Raises OSError.

    A newer one of the same name takes the place of the one that was set aside before.
    """
    fresh = [path for path in paths if path not in manifest.conflists]
    if fresh:
        manifest.conflists += fresh
        manifest.save()
    for path in paths:
        with suppress(FileNotFoundError):
            os.replace(path, aside(path))


def put_back_conflists(manifest: Manifest) -> list[str]:
    """Rename them back; what was done. Where a new one has the name both stay. Raises OSError."""
    lines = []
    for path in list(manifest.conflists):
        if os.path.lexists(path) and os.path.lexists(aside(path)):
            lines.append(f"left {aside(path)}: {path.name} is there again")
        elif os.path.lexists(aside(path)):
            os.rename(aside(path), path)
            lines.append(f"put back {path}")
        manifest.conflists.remove(path)
        manifest.save()
    return lines
