"""How long to wait after the API server did not answer, or refused."""

from daemon.backoff import Backoff

WATCH_PAUSES = 1.0, 30.0
"""Seconds at most before nodes are asked for again: after the first failure, and after many."""
PAUSE, PAUSE_MAX = 0.5, 30.0
"""Seconds between other requests: pauses double from the first to the second."""


def retry_pauses(calm: float) -> Backoff:
    """Pauses between attempts. calm: seconds without one after which the first counts again."""
    return Backoff(PAUSE, PAUSE_MAX, calm, jitter=0.5)
