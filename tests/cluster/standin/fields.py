"""Who owns which field: managedFields and what server-side apply makes of them.

As Kubernetes documents it (Server-Side Apply); lists are atomic, as in custom resources without
list types, but for owner references, which are a map by UID.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

Object = dict[str, Any]
Path = tuple[str, ...]
"""Keys from the top; an owner reference's is `k:{"uid":...}`."""

_UNOWNED = {"apiVersion", "kind"}
_OWNED_META = ("annotations", "finalizers", "labels", "ownerReferences")


class Conflicts(Exception):
    """Fields of others. causes: path and manager."""

    def __init__(self, causes: list[tuple[Path, str]]) -> None:
        super().__init__(causes)
        self.causes = causes


def apply(live: Object | None, config: Object, manager: str, *, force: bool) -> Object:
    """The object after a server-side apply. Raises Conflicts."""
    made = copy.deepcopy(live) if live else {k: config[k] for k in _UNOWNED} | {"metadata": {}}
    owners = _read(made)
    mine = set(_paths(config))
    causes = [
        (path, other)
        for (other, how), owned in owners.items()
        if (other, how) != (manager, "Apply")
        for path in sorted(owned & mine)
        if _get(made, path) != _get(config, path)
    ]
    if causes and not force:
        raise Conflicts(causes)
    lost = {path for path, _ in causes}
    kept = {who: owned - lost for who, owned in owners.items() if who != (manager, "Apply")}
    before = owners.get((manager, "Apply"), set())
    for path in before - mine - set().union(*kept.values()):
        _drop(made, path)
    for path in sorted(mine):
        _set(made, path, _get(config, path))
    _write(made, {**kept, (manager, "Apply"): mine})
    return made


def update(live: Object | None, made: Object, manager: str) -> Object:
    """The object with what the manager changed in it noted as its own."""
    before = live or {"metadata": {}}
    changed = {p for p in _paths(made) if _get(before, p) != _get(made, p)}
    owners = _read(before)
    kept = {who: {p for p in owned - changed if _has(made, p)} for who, owned in owners.items()}
    if changed:
        kept[manager, "Update"] = kept.get((manager, "Update"), set()) | changed
    made = copy.deepcopy(made)
    _write(made, kept)
    return made


def _paths(made: Object) -> Iterator[Path]:
    for key, value in made.items():
        if key == "metadata":
            for name in _OWNED_META:
                if name in value:
                    yield from _leaves((key, name), value[name])
        elif key not in _UNOWNED:
            yield from _leaves((key,), value)


def _leaves(path: Path, value: Any) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    elif path == ("metadata", "ownerReferences"):
        yield from ((*path, _reference(item)) for item in value)
    else:
        yield path


def _reference(item: Object) -> str:
    return "k:" + json.dumps({"uid": item["uid"]}, separators=(",", ":"))


def _step(inside: Any, key: str) -> Any:
    if isinstance(inside, list):
        return next((item for item in inside if _reference(item) == key), None)
    return inside.get(key) if isinstance(inside, dict) else None


def _get(made: Object, path: Path) -> Any:
    value: Any = made
    for key in path:
        value = _step(value, key)
    return value


def _has(made: Object, path: Path) -> bool:
    return _get(made, path) is not None


def _set(made: Object, path: Path, value: Any) -> None:
    inside: Any = made
    for key in path[:-1]:
        empty: Any = [] if key == "ownerReferences" else {}
        if not isinstance(inside.get(key), (dict, list)):
            inside[key] = empty
        inside = inside[key]
    if isinstance(inside, list):
        inside[:] = [item for item in inside if _reference(item) != path[-1]]
        inside.append(copy.deepcopy(value))
    else:
        inside[path[-1]] = copy.deepcopy(value)


def _drop(made: Object, path: Path) -> None:
    inside = _get(made, path[:-1])
    if isinstance(inside, list):
        inside[:] = [item for item in inside if _reference(item) != path[-1]]
    elif isinstance(inside, dict):
        inside.pop(path[-1], None)
    if not inside and len(path) > 2:
        _drop(made, path[:-1])


def _read(made: Object) -> dict[tuple[str, str], set[Path]]:
    entries = made.get("metadata", {}).get("managedFields", [])
    return {(e["manager"], e["operation"]): set(_unpack((), e["fieldsV1"])) for e in entries}


def _unpack(path: Path, packed: Object) -> Iterator[Path]:
    for key, inner in packed.items():
        if key == ".":
            continue
        step = (*path, key.removeprefix("f:"))
        if inner:
            yield from _unpack(step, inner)
        else:
            yield step


def _write(made: Object, owners: dict[tuple[str, str], set[Path]]) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made["metadata"]["managedFields"] = [
        {
            "manager": manager,
            "operation": operation,
            "apiVersion": made["apiVersion"],
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": _pack(paths),
        }
        for (manager, operation), paths in owners.items()
        if paths
    ]


def _pack(paths: Iterable[Path]) -> Object:
    packed: Object = {}
    for path in sorted(paths):
        inside = packed
        for key in path:
            inside = inside.setdefault(key if key.startswith("k:") else f"f:{key}", {})
    return packed
