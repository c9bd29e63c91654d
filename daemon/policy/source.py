"""Where policies come from: whole facts, whatever the source is."""

from __future__ import annotations

from typing import Protocol

from daemon.model import SourceActivity
from daemon.policy.model import Facts


class PolicySource(Protocol):
    """Follows policies, namespaces and pods. Its methods are called from one thread.

    names_pods: whether a pod that it does not describe is known by its name. activity: what it
    received of an API; of files nothing.
    """

    names_pods: bool
    activity: SourceActivity

    @property
    def fault(self) -> str:
        """Why its facts may be old; empty where they are not."""

    def start(self) -> None:
        """Begin to follow."""

    def fileno(self) -> int:
        """A descriptor that is readable while there may be new facts; negative: ask at times."""

    def take(self) -> Facts | None:
        """The facts, None where they did not change since."""

    def close(self) -> None:
        """End."""
