"""The paths of podwired.yaml together: no two of the daemon's files may be in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.yaml import Fault, Item

if TYPE_CHECKING:
    from daemon.config.schema import Settings, SourceSettings

_Named = tuple[str, Path]

LAST_KNOWN = "cluster.json"
"""Below the data folder: the state of a source that is no file itself."""
LEASE = "etcd-lease.json"
"""Below the data folder: what this node holds in an etcd."""
SUCCESSION = "succession.json"
"""Below the data folder: the secret by which Kubernetes' other nodes know this one's changes."""
_SOURCE_FILES = {
    "path": "",
    "kubeconfig": ".kubeconfig",
    "ca_file": ".caFile",
    "cert_file": ".certFile",
    "key_file": ".keyFile",
    "password_file": ".passwordFile",
}


def check_paths(settings: Settings, root: Item) -> None:
    """Raises Fault where one file would take another's place, or have to be a folder for it."""
    for first, second in combinations(_files(settings), 2):
        why = _conflict(first, second)
        if not why:
            continue
        item = _find(root, second[0])
        if item is None:
            item, first, second = _find(root, first[0]), second, first
        # Left out, both of them: the environment moved one onto the other.
        subject = "" if item else f"{second[0]} ({second[1]}) "
        raise Fault(item or root, f"{subject}{why} {first[0]} ({first[1]})", shown=bool(item))


def _files(settings: Settings) -> Sequence[_Named]:
    journal, status = settings.journal.path, settings.status_file
    files = [
        *_source_files(settings.source),
        ("dataDir", settings.data_dir / "podwire.db"),
        ("dataDir", settings.data_dir / LAST_KNOWN),
        ("dataDir", settings.data_dir / LEASE),
        ("dataDir", settings.data_dir / SUCCESSION),
        ("socket", settings.socket),
        ("journal.path", journal),
        ("journal.path", journal.with_name(f"{journal.name}.1")),
        ("statusFile", status),
        ("statusFile", status.with_name(f"{status.name}.lock")),
    ]
    if settings.conflist:
        files.append(("conflist.path", settings.conflist.path))
    return [(key, Path(os.path.normpath(path))) for key, path in files]


def _source_files(source: SourceSettings) -> Iterator[_Named]:
    for attribute, key in _SOURCE_FILES.items():
        path = getattr(source, attribute, None)
        if path is not None:
            yield f"source.{source.kind}{key}", path


def _conflict(first: _Named, second: _Named) -> str:
    (one, path), (other, another) = first, second
    if one == other:
        return ""
    if path == another:
        return "must be another file than that of"
    if path in another.parents or another in path.parents:
        return "cannot be beside that of"
    return ""


def _find(root: Item, key: str) -> Item | None:
    item: Item | None = root
    for step in key.split("."):
        content = item.content if item else None
        item = content.get(step) if isinstance(content, dict) else None
    return item if item and item.content is not None else None
