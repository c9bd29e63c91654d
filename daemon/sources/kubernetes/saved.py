"""What a daemon leaves to the next one beside the nodes, as the position of the last known state.

One line: the watch's resourceVersion or nothing, the own Node's uid, the claims not believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from daemon.cluster import Node
from daemon.sources.kubernetes.events import is_position
from daemon.sources.lastknown import parse_node, show_node

OPEN_MAX = 100
"""More claims than that are not kept: then a list is cheaper."""


@dataclass(frozen=True, slots=True)
class Saved:
    """position: a resourceVersion, empty = a list is needed. open: claims that are not believed."""

    position: str
    uid: str
    open: tuple[Node, ...] = ()


def render_saved(saved: Saved) -> str:
    """As one line."""
    fits = saved.position and len(saved.open) <= OPEN_MAX
    if not fits:
        return f"- {saved.uid}"
    claims = json.dumps([show_node(node) for node in _by_name(saved.open)])
    return (
        f"{saved.position} {saved.uid} {claims}" if saved.open else f"{saved.position} {saved.uid}"
    )


def _by_name(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: node.name)


def parse_saved(text: str) -> Saved | None:
    """What `render_saved` made; None where it is nothing of the kind."""
    position, _, rest = text.partition(" ")
    uid, _, claims = rest.partition(" ")
    if position == "-":
        return Saved("", uid)
    if not is_position(position):
        return None
    try:
        return Saved(position, uid, tuple(map(parse_node, json.loads(claims or "[]")))[:OPEN_MAX])
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
