"""Nodes of an etcd that was replaced by another one, or by an older state of itself.

Such an etcd knows less than the daemons do, which write themselves down again one by one. Until
they had the time for that, a node that is missing is not a node that left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Mapping

from daemon.model import Node
from kernel.model import IPNetwork

GRACE = 600.0
"""Seconds: the longest pause between two attempts of a daemon, many times."""


class Elders:
    """Nodes that are known from before, for some time. now: seconds, monotonic."""

    def __init__(self, grace: float = GRACE, now: Callable[[], float] = time.monotonic) -> None:
        self._grace, self._now = grace, now
        self._nodes: dict[str, Node] = {}
        self._until = -math.inf

    @property
    def left(self) -> float:
        """Seconds for which there are any; infinite where there are none."""
        return max(0.0, self._until - self._now()) if self._nodes else math.inf

    def keep(self, nodes: Mapping[str, Node], seconds: float = math.inf) -> int:
        """Keep these from now on, and those that are kept already; how many that are.

        seconds: for so long, if that is less than the grace.
        """
        self._expire()
        self._nodes |= nodes
        self._until = self._now() + min(self._grace, seconds)
        self._expire()
        return len(self._nodes)

    def beside(self, present: Container[str], taken: Container[IPNetwork]) -> list[Node]:
        """Those that are not present, without prefixes that were taken meanwhile."""
        self._expire()
        gone = (node for node in self._nodes.values() if node.name not in present)
        return [_without(node, taken) for node in gone]

    def _expire(self) -> None:
        if self._now() >= self._until:
            self._nodes.clear()


def _without(node: Node, taken: Container[IPNetwork]) -> Node:
    rest = tuple(prefix for prefix in node.pod_cidrs if prefix not in taken)
    return node if rest == node.pod_cidrs else Node(node.name, node.addresses, rest)
