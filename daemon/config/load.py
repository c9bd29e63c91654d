"""Reads podwired.yaml into `Settings`; every error names file, line, key and value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import DATA_FILES
from daemon.config.schema import ENCAPSULATING, SECTION, Section, Settings, SourceSettings, keys_at
from daemon.config.values import Plain, Secret
from daemon.config.yaml import Fault, Item, load, read_file
from daemon.model import parse_node_name
from ipam.files import Files

S = TypeVar("S", bound=Section)
_Named = tuple[str, Path]

_KEY_MAX = 80
_TYPES = {"model_type": "must be a mapping", "tuple_type": "must be a list"}


def load_settings(
    path: Path, env: Mapping[str, str] | None = None, host_name: str | None = None
) -> Settings:
    """The settings in a file. Raises FileFault, also where the file cannot be read.

    What the file leaves out comes from the environment (PODWIRE_SOCKET, PODWIRE_DATA_DIR), then
    from the defaults.
    """
    return parse_settings(read_file(path), path, env, host_name)


def parse_settings(
    data: bytes,
    file: Path | str,
    env: Mapping[str, str] | None = None,
    host_name: str | None = None,
) -> Settings:
    """The settings in a file's content; `file` is what errors call it. Raises FileFault."""
    environment = os.environ if env is None else env
    name = os.uname().nodename if host_name is None else host_name

    def read(root: Item) -> Settings:
        settings = read_section(Settings, root, *_defaults(root, environment, name.strip().lower()))
        _check_paths(settings, root)
        _check_ports(settings, root)
        return settings

    return load(data, file, read)


def _defaults(
    root: Item, env: Mapping[str, str], name: str
) -> tuple[dict[str, object], dict[str, str]]:
    """What the keys are that depend on the host or on other keys; why there is none for `node`."""
    data_dir = Path(_text_at(root, "dataDir") or _path(env, "PODWIRE_DATA_DIR", DEFAULT_DATA_DIR))
    socket = Path(_text_at(root, "socket") or _path(env, "PODWIRE_SOCKET", DEFAULT_SOCKET))
    defaults: dict[str, object] = {
        "dataDir": data_dir,
        "socket": socket,
        "statusFile": socket.parent / "status.json",
        "journal": {"path": data_dir / "journal.jsonl"},
    }
    try:
        # Kubernetes names a node by its host name in lower case (kubelet, nodeutil.GetHostname).
        return defaults | {"node": parse_node_name(name)}, {}
    except ValueError as error:
        return defaults, {"node": f", for the host name {name!r} {error}"}


def _text_at(root: Item, key: str) -> str:
    item = _given(root, key)
    return item.content if item and isinstance(item.content, str) else ""


def _path(env: Mapping[str, str], variable: str, default: Path) -> str:
    value = env.get(variable, "")
    return value if value.startswith("/") else str(default)


# -- from items to a section


def read_section(
    section: type[S],
    root: Item,
    defaults: Mapping[str, object] = MappingProxyType({}),
    hints: Mapping[str, str] = MappingProxyType({}),
) -> S:
    """The section that an item is. Raises Fault for the first line that is wrong.

    defaults: for keys that are left out. hints: what a message adds for a key that is missing.
    """
    try:
        values = _fill(_values(root), defaults)
        return section.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        first = min(details, key=lambda detail: _order(root, detail))
        raise _fault(section, root, first, hints) from error


def _fill(values: object, defaults: Mapping[str, object]) -> object:
    if not isinstance(values, dict):
        return values
    filled = dict(values)
    for key, default in defaults.items():
        if values.get(key) is None:
            filled[key] = default
        elif isinstance(default, dict):
            filled[key] = _fill(values[key], default)
    return filled


def _values(item: Item) -> object:
    content = item.content
    if isinstance(content, dict):
        return {key: _values(child) for key, child in content.items()}
    if isinstance(content, list):
        return tuple(map(_values, content))
    return Plain(content) if content is not None and item.plain else content


def _order(root: Item, detail: ErrorDetails) -> tuple[bool, int]:
    # A key that is misspelt comes before the one that is therefore missing.
    return detail["type"] != "extra_forbidden", root.find(*detail["loc"]).line


def _fault(
    section: type[Section], root: Item, detail: ErrorDetails, hints: Mapping[str, str]
) -> Fault:
    path, kind = detail["loc"], detail["type"]
    item, key = root.find(*path), str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return Fault(item, _unknown_key(key, keys_at(section, path[:-1])), shown=False)
    if kind == "missing":
        # The item is there if its value is what is missing; else it is the mapping's.
        why = "has no value" if item.content is None else f"needs the key {key}"
        return Fault(item, why + hints.get(key, ""), shown=False)
    if kind == SECTION:
        return Fault(item, detail["msg"], shown=False)
    if kind == "value_error":
        error = detail["ctx"]["error"]
        return Fault(item, str(error), shown=not isinstance(error, Secret))
    return Fault(item, _TYPES[kind])


def _unknown_key(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key[:_KEY_MAX], known, n=1, cutoff=0.6)
    guess = [name for name in known if name.lower() == key.lower()] or near
    tail = f"did you mean {guess[0]}?" if guess else f"known keys: {', '.join(known)}"
    return f"unknown key; {tail}"


# -- paths and ports together


def _check_paths(settings: Settings, root: Item) -> None:
    """Raises Fault where one file would take another's place, or have to be a folder for it."""
    for first, second in combinations(_files(settings), 2):
        why = _conflict(first[1], second[1])
        if not why:
            continue
        item = _given(root, second[0])
        if item is None:
            item, first, second = _given(root, first[0]), second, first
        # Left out, both of them: the environment moved one onto the other.
        subject = "" if item else f"{second[0]} ({second[1]}) "
        raise Fault(item or root, f"{subject}{why} {first[0]} ({first[1]})", shown=bool(item))


def _files(settings: Settings) -> Sequence[_Named]:
    journal, status = settings.journal.path, settings.status_file
    files = [
        *_source_files(settings.source),
        ("dataDir", Files(settings.data_dir).database),
        *(("dataDir", settings.data_dir / name) for name in DATA_FILES),
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
    if source.static:
        yield "source.static", source.static
    for section in filter(None, (source.kubernetes, source.etcd)):
        for name, field in type(section).model_fields.items():
            path = getattr(section, name)
            if isinstance(path, Path):
                yield f"source.{source.kind}.{field.alias}", path


def _conflict(one: Path, other: Path) -> str:
    if one == other:
        return "must be another file than that of"
    if one in other.parents or other in one.parents:
        return "cannot be beside that of"
    return ""


def _check_ports(settings: Settings, root: Item) -> None:
    """Raises Fault where the probes would have the overlay's port, which is the kernel's own."""
    health, vxlan = settings.health, settings.vxlan
    if health is None or settings.backend not in ENCAPSULATING or health.port != vxlan.port:
        return
    item, other = _given(root, "health.port"), f"vxlan.port ({vxlan.port})"
    if item is None:
        item, other = _given(root, "vxlan.port"), f"health.port ({health.port})"
    raise Fault(item or root, f"must be another port than {other}", shown=item is not None)


def _given(root: Item, key: str) -> Item | None:
    """The item of a key that has a value."""
    item: Item | None = root
    for step in key.split("."):
        content = item.content if item else None
        item = content.get(step) if isinstance(content, dict) else None
    return item if item and item.content is not None else None
