"""The plugins of a conflist: podwire's own first, then those that other programs append. Pure.

Installers of service meshes read the file, take out an entry of their type if there is one, append
theirs, write all keys in another order, and rename the result into place (istio/istio,
cni/pkg/install/cniconfig.go; linkerd/linkerd2-proxy-init, internal/cni/conf.go). So two files are
the same if their values are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.config.schema import PLUGIN_MAX
from daemon.config.values import PLUGINS_MAX, is_plugin_type

FILE_MAX = 4 << 20
"""Bytes; with all plugins that are kept no configuration is near."""
CHAINED = "podwiredPlugins"
"""The key of the types that the daemon itself has appended, by its configuration."""
_OWN_TYPE = "podwire"
_DEPTH_MAX = 32
_SHOWN_MAX = 60  # characters

Conf = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Merged:
    """A conflist of podwire's with the entries that others appended.

    kept: types of these, in their order. dropped: what of the file cannot stay, and why.
    """

    conf: Conf
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def parse_conf(content: bytes) -> Conf | None:
    """The configuration in a file; None where no runtime can read it, or where it is too large."""
    if len(content) > FILE_MAX:
        return None
    try:
        # Not bytes: json.loads takes UTF-16 then, which runtimes do not.
        value = json.loads(content.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def render_conf(conf: Conf) -> bytes:
    """The file's content."""
    return json.dumps(conf, indent=2, allow_nan=False).encode() + b"\n"


def merge(own: Conf, observed: Conf) -> Merged:
    """podwire's configuration, with the entries of the observed one that are others'.

    Each keeps its order, and follows podwire's: only there it gets the result that it builds on.
    """
    listed = observed.get("plugins")
    written, configured = Counter(_written(observed)), {p["type"] for p in own["plugins"]}
    kept: list[Conf] = []
    dropped: list[str] = []
    for entry in listed if isinstance(listed, list) else ():
        why = _fault(entry)
        kind = "" if why else entry["type"]
        if not why and (kind == _OWN_TYPE or written[kind] > 0):
            written[kind] -= 1
            continue
        if kind in configured:
            why = "conflist.plugins has that type"
        elif not why and len(kept) == PLUGINS_MAX:
            why = f"more than {PLUGINS_MAX}"
        if why:
            dropped.append(f"{_show(entry)}: {why}")
        else:
            kept.append(entry)
    conf = {**own, "plugins": [*own["plugins"], *kept]}
    return Merged(conf, tuple(entry["type"] for entry in kept), tuple(dropped))


def is_same(one: object, other: object) -> bool:
    """Whether two values are the same as JSON: numbers as float64, for Go writes 1.0 as 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if _is_number(one) and _is_number(other):
        return _as_float(one) == _as_float(other)
    return type(one) is type(other) and one == other


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _written(observed: Mapping[str, Any]) -> Sequence[str]:
    types = observed.get(CHAINED)
    found = types if isinstance(types, list) else []
    return [kind for kind in found if isinstance(kind, str)]


def _fault(entry: object) -> str:
    """Why an entry makes the whole file useless to runtimes, or is too much; empty for none."""
    if not isinstance(entry, dict) or not is_plugin_type(entry.get("type")):
        return "no configuration of a plugin"
    if not _is_shallow(entry, _DEPTH_MAX):
        return "nested too deep, or a number too large"
    return "too large" if len(json.dumps(entry, indent=2)) > PLUGIN_MAX else ""


def _is_shallow(value: object, room: int) -> bool:
    if isinstance(value, float):
        return abs(value) != float("inf")  # JSON's 1e999
    if not isinstance(value, (dict, list)):
        return True
    members = value.values() if isinstance(value, dict) else value
    return room > 0 and all(_is_shallow(member, room - 1) for member in members)


def _show(entry: object) -> str:
    kind = entry.get("type") if isinstance(entry, dict) else None
    shown = kind if isinstance(kind, str) else f"an entry of {type(entry).__name__}"
    return shown if shown.isprintable() and len(shown) <= _SHOWN_MAX else repr(shown[:_SHOWN_MAX])


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")
