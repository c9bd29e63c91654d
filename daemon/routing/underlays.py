"""Whose address lies in whose prefix: packets to such a node would go through the tunnel that
they are to carry."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.model import Node
from daemon.prefix_set import Span, SpanSet, host_span, span_of


class Underlays:
    """The addresses and prefixes of all nodes, whether they get them or not."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._addresses, self._prefixes = _Index(), _Index()

    def put(self, name: str, node: Node | None) -> set[str]:
        """Replace a node; whose prefixes have, or whose addresses are in, what it had or has."""
        touched: set[str] = set()
        old = self._nodes.pop(name, None)
        if old is not None:
            touched |= self._crossing(old)
            for span in map(host_span, old.addresses):
                self._addresses.remove(span, name)
            for span in map(span_of, old.pod_cidrs):
                self._prefixes.remove(span, name)
        if node is not None:
            self._nodes[name] = node
            touched |= self._crossing(node)
            for span in map(host_span, node.addresses):
                self._addresses.add(span, name)
            for span in map(span_of, node.pod_cidrs):
                self._prefixes.add(span, name)
        return touched

    def _crossing(self, node: Node) -> set[str]:
        around = (found for a in node.addresses for found in self.around(host_span(a)))
        within = (found for p in node.pod_cidrs for found in self.within(span_of(p)))
        return {name for name, _span in (*around, *within)}

    def around(self, address: Span) -> Iterator[tuple[str, Span]]:
        """Each node that has a prefix with that address, with the prefix; the smallest first."""
        for span in self._prefixes.spans.around(address):
            yield from ((name, span) for name in sorted(self._prefixes.names[span]))

    def within(self, prefix: Span) -> Iterator[tuple[str, Span]]:
        """Each node that has an address in a prefix, with the address."""
        for span in self._addresses.spans.within(prefix):
            yield from ((name, span) for name in sorted(self._addresses.names[span]))


class _Index:
    def __init__(self) -> None:
        self.spans = SpanSet()
        self.names: dict[Span, set[str]] = {}

    def add(self, span: Span, name: str) -> None:
        self.spans.add(span)
        self.names.setdefault(span, set()).add(name)

    def remove(self, span: Span, name: str) -> None:
        names = self.names[span]
        names.discard(name)
        if not names:
            del self.names[span]
            self.spans.discard(span)
