"""Whether the daemon is alive, and whether its node is ready for pods, in a line for probes."""

from __future__ import annotations

from daemon.metrics.http import Response, tell
from daemon.routing.counters import Counts

TURN_MAX = 30.0
"""Seconds after which a loop that has not turned is stuck; it turns twice a second."""


def answer_alive(counts: Counts, now: float) -> Response:
    """200 while the routing loop turns, else 503. now: seconds of the monotonic clock."""
    idle = now - counts.turned
    if idle > TURN_MAX:
        return tell(503, f"the routing loop has not turned for {idle:.0f} s")
    return tell(200, "alive")


def answer_ready(counts: Counts) -> Response:
    """200 while this node is ready for pods, as STATUS sees it, else 503 and why."""
    seen = counts.seen
    if seen is None:
        return tell(503, "podwired has just begun to make routes")
    if seen.status.fault:
        return tell(503, f"this node is not ready: {seen.status.fault}")
    return tell(200, "ready")
