"""Reads podwired.yaml into `Settings`; every error names file, line, key and value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import JOURNAL, path_in
from daemon.config.schema import ENCAPSULATING, SECTION, Section, Settings, keys_at
from daemon.config.values import Plain, Secret
from daemon.config.yaml import Fault, Item, load, read_file
from daemon.model import parse_node_name

S = TypeVar("S", bound=Section)

_KEY_MAX = 80
_TYPES = {"model_type": "must be a mapping", "tuple_type": "must be a list"}


def load_settings(
    path: Path, env: Mapping[str, str] | None = None, host_name: str | None = None
) -> Settings:
    """The settings in a file. Raises FileFault, also where the file cannot be read.

    What the file leaves out comes from the environment (PODWIRE_NODE, PODWIRE_SOCKET,
    PODWIRE_DATA_DIR), then from the defaults.
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
        settings = read_section(Settings, root, *_defaults(root, environment, name))
        _check_ports(settings, root)
        return settings

    return load(data, file, read)


def _defaults(
    root: Item, env: Mapping[str, str], host_name: str
) -> tuple[dict[str, object], dict[str, str]]:
    """What the keys are that depend on the host or on other keys; why there is none for `node`."""
    data_dir = _path(root, "dataDir", env, "PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    socket = _path(root, "socket", env, "PODWIRE_SOCKET", DEFAULT_SOCKET)
    defaults: dict[str, object] = {
        "dataDir": data_dir,
        "socket": socket,
        "statusFile": socket.parent / "status.json",
        "journal": {"path": data_dir / JOURNAL},
    }
    # Kubernetes names a node by its host name in lower case (kubelet, nodeutil.GetHostname).
    name, origin = host_name.strip().lower(), "the host name"
    if given := env.get("PODWIRE_NODE"):
        name, origin = given, "PODWIRE_NODE"
    try:
        return defaults | {"node": parse_node_name(name)}, {}
    except ValueError as error:
        return defaults, {"node": f", for {origin} {name!r} {error}"}


def _path(root: Item, key: str, env: Mapping[str, str], variable: str, default: Path) -> Path:
    """What the key, the variable or the default says. Raises Fault for a relative variable."""
    item = _given(root, key)
    if item and isinstance(item.content, str):
        return Path(item.content)
    try:
        return path_in(env, variable, default)
    except ValueError as error:
        raise Fault(root, f"the key {key} is left out, and {error}", shown=False) from error


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
