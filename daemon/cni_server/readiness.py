"""What STATUS answers for the network whose routes this daemon keeps (SPEC 1.1.0, "STATUS")."""

from __future__ import annotations

import json
from collections.abc import Callable

from cni_plugin.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from daemon.cni_server.board import Board
from daemon.status import NodeStatus

_SEE = "see `podwired status` on this node"
_FAULT_MAX = 1000  # characters, in JSON at most twelve bytes each


class Readiness:
    """The newest status, passed on to where it is kept; its answer to all of the processes.

    network: the name in the CNI configuration that the daemon writes; other networks' pods need no
    routes to other nodes.
    """

    def __init__(self, network: str, keep: Callable[[NodeStatus], None]) -> None:
        self._network, self._keep = network, keep
        self._board, self._written = Board(), ""

    def publish(self, status: NodeStatus) -> None:
        """Take a new status. Raises what the keeper raises."""
        text = json.dumps(_judge(status))
        if text != self._written:
            self._board.write(text)
            self._written = text
        self._keep(status)

    def fault(self, network: str) -> CniError | None:
        """Code 50 while the node is not ready, 51 while some peers are not reached; else None.

        A prefix that is refused counts for neither: it is the cluster's mistake, and what this
        node's pods can reach will not change by waiting.
        """
        if network != self._network:
            return None
        text = self._board.read()
        if not text:
            return CniError(NOT_AVAILABLE, "podwired has just begun to make routes", _SEE)
        found = json.loads(text)
        return CniError(found[0], found[1], _SEE) if found else None


def _judge(status: NodeStatus) -> tuple[int, str] | None:
    if status.fault:
        # Cut to what the board takes whole.
        return NOT_AVAILABLE, f"this node is not ready: {status.fault[:_FAULT_MAX]}"
    missing = status.wanted - status.in_sync
    if missing:
        msg = f"{missing} of {status.wanted} entries for other nodes' pods are missing"
        return LIMITED_CONNECTIVITY, msg
    return None
