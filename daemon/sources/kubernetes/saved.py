"""What a daemon leaves to the next one beside the nodes, as the position of the last known state.

One line: the watch's resourceVersion or -, the own Node's uid, and JSON of nodes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from daemon.model import Node
from daemon.sources.cache import parse_node, show_node
from daemon.sources.kubernetes.events import is_position

OPEN_MAX = 100
"""More claims than that are not kept: then a list is cheaper."""
LEFT_MAX = 100
"""So many of those who have no object any more are kept, the latest ones."""


@dataclass(frozen=True, slots=True)
class Saved:
    """position: a resourceVersion, empty = a list is needed. open: claims that are not believed.

    left: nodes that have no object any more; see Roster.
    """

    position: str
    uid: str
    open: tuple[Node, ...] = ()
    left: tuple[Node, ...] = ()


def render_saved(saved: Saved) -> str:
    """As one line."""
    is_kept = saved.position and len(saved.open) <= OPEN_MAX
    words = [saved.position if is_kept else "-", saved.uid]
    claims = {"open": saved.open if is_kept else (), "left": saved.left[-LEFT_MAX:]}
    if any(claims.values()):
        words.append(
            json.dumps({key: list(map(show_node, nodes)) for key, nodes in claims.items()})
        )
    return " ".join(words)


def parse_saved(text: str) -> Saved | None:
    """What `render_saved` made; None where it is nothing of the kind."""
    position, _, rest = text.partition(" ")
    uid, _, claims = rest.partition(" ")
    if not is_position(position):
        return None
    try:
        root = json.loads(claims) if claims else {"open": [], "left": []}
        opened, left = (tuple(map(parse_node, root[key])) for key in ("open", "left"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Saved("" if position == "-" else position, uid, opened[:OPEN_MAX], left[:LEFT_MAX])
