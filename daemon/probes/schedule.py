"""Whose turn it is: peers that are well go round, others come first but never take all of it."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count

from daemon.probes.peer import Peer

_SHARE = 2
"""Of so many turns one at least is of a peer that is well, if one is due."""


class Queue:
    """Two lines, without a timer for each peer."""

    def __init__(self) -> None:
        self._urgent: list[tuple[float, int, Peer]] = []
        # In order of time but for plans with more or fewer peers: then some wait for others.
        self._calm: deque[tuple[float, int, Peer]] = deque()
        self._tickets = count(1)
        self._turn = 0

    def hurry(self, peer: Peer, due: float) -> None:
        """Let a peer have its turn then, in the place of the turn that it has."""
        peer.ticket = next(self._tickets)
        heapq.heappush(self._urgent, (due, peer.ticket, peer))

    def go_round(self, peer: Peer, due: float) -> None:
        """The same for a peer that is well; after all that were put there before."""
        peer.ticket = next(self._tickets)
        self._calm.append((due, peer.ticket, peer))

    def pop(self, now: float) -> Peer | None:
        """The next peer whose turn it is, which has none any more; None where it is nobody's."""
        self._drop_stale()
        urgent = bool(self._urgent) and self._urgent[0][0] <= now
        calm = bool(self._calm) and self._calm[0][0] <= now
        if not urgent and not calm:
            return None
        if urgent and calm:
            self._turn = (self._turn + 1) % _SHARE
            urgent = self._turn > 0
        peer = heapq.heappop(self._urgent)[2] if urgent else self._calm.popleft()[2]
        peer.ticket = 0
        return peer

    def next_due(self) -> float | None:
        """When it is somebody's turn."""
        self._drop_stale()
        heads = (self._urgent[0][0] if self._urgent else None, self._calm and self._calm[0][0])
        return min((due for due in heads if isinstance(due, float)), default=None)

    def _drop_stale(self) -> None:
        while self._urgent and _is_stale(self._urgent[0]):
            heapq.heappop(self._urgent)
        while self._calm and _is_stale(self._calm[0]):
            self._calm.popleft()


def _is_stale(place: tuple[float, int, Peer]) -> bool:
    _due, ticket, peer = place
    return peer.gone or peer.ticket != ticket
