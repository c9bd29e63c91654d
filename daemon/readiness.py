"""What STATUS answers for the network whose routes this daemon keeps (SPEC 1.1.0, "STATUS")."""

from __future__ import annotations

from collections.abc import Callable

from cni_plugin.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from daemon.status import NodeStatus

_SEE = "see `podwired status` on this node"


class Readiness:
    """The newest status, passed on to where it is kept.

    network: the name in the CNI configuration that the daemon writes; other networks' pods need no
    routes to other nodes.
    """

    def __init__(self, network: str, keep: Callable[[NodeStatus], None]) -> None:
        self._network, self._keep = network, keep
        self._status: NodeStatus | None = None

    def publish(self, status: NodeStatus) -> None:
        """Take a new status. Raises what the keeper raises."""
        self._status = status  # one assignment: calls look at it from threads of their own
        self._keep(status)

    def fault(self, network: str) -> CniError | None:
        """Code 50 while the node is not ready, 51 while some peers are not reached; else None.

        A prefix that is refused counts for neither: it is the cluster's mistake, and what this
        node's pods can reach will not change by waiting.
        """
        status = self._status
        if network != self._network:
            return None
        if status is None:
            return CniError(NOT_AVAILABLE, "podwired has just begun to make routes", _SEE)
        if status.fault:
            return CniError(NOT_AVAILABLE, f"this node is not ready: {status.fault}", _SEE)
        missing = status.wanted - status.in_sync
        if missing:
            msg = f"{missing} of {status.wanted} entries for other nodes' pods are missing"
            return CniError(LIMITED_CONNECTIVITY, msg, _SEE)
        return None
