"""podwire's nftables rules, watched over: what is removed comes back, and what pods send to other
nodes' pods is not masqueraded."""

from __future__ import annotations

import errno
import os
import time
from ipaddress import ip_address
from pathlib import Path

from cni_plugin.repair import repair_rules
from daemon.spans import Span
from daemon.teller import Teller
from ipam.errors import StoreBusy
from kernel.errors import KernelError
from kernel.events import RuleChange
from kernel.masquerade import ensure_cluster
from kernel.model import Element, IPAddress
from kernel.nft import ATTACHMENT_SETS, CLUSTER_SETS, NETWORK_SETS, TABLE, cluster_elements

_BYTES = {4: 4, 6: 16}
_SHARED = frozenset({*CLUSTER_SETS, *NETWORK_SETS})
_PODS = frozenset(name for _family, name in ATTACHMENT_SETS)
_NAME = "nftables rules"
_PATIENCE = 0.1
"""Seconds that routes may wait for a store that another process locks."""
_BUSY_GAP = 1.0


class Rules:
    """The tables, what all pods share, and what each of them has in the sets."""

    def __init__(self, data_dir: Path, teller: Teller) -> None:
        self._data_dir, self._teller = data_dir, teller
        self._spans: tuple[Span, ...] | None = None
        self._want: frozenset[Element] = frozenset()
        self._tables_due, self._cluster_due, self._cause = True, False, ""
        self._busy_until = 0.0

    @property
    def is_due(self) -> bool:
        """Whether they must be looked at."""
        return self._tables_due or self._cluster_due

    @property
    def is_planned(self) -> bool:
        """Whether the plan changed them: then they come before the routes, whose packets would be
        masqueraded for as long as a connection lasts."""
        return self._cluster_due

    def aim(self, cluster: tuple[Span, ...]) -> None:
        """Take the addresses of all pods of the cluster."""
        if cluster != self._spans:
            self._spans, self._want = cluster, cluster_elements(map(_ends, cluster))
            self._cluster_due = True

    def note(self, change: RuleChange, *, deleted: bool, port: int, cause: str) -> None:
        """Take an event in."""
        if change.table != TABLE or port == os.getpid():
            return
        if change.what == "member":
            # Pods that come and go elsewhere add theirs.
            matters = change.name in _SHARED or (deleted and change.name in _PODS)
        else:
            matters = deleted or change.what == "rule"
        if matters:
            self.look(cause)

    def look(self, cause: str) -> None:
        """Look at everything, for what others may have done."""
        self._tables_due, self._cause = True, cause

    def mend(self) -> float | None:
        """Bring back what is missing; seconds until that may be. Raises KernelError, IpamError."""
        if self._spans is None or not (self._tables_due or self._cluster_due):
            return None
        wait = max(self._teller.wait_for(_NAME), self._busy_until - time.monotonic())
        if wait > 0:
            return wait
        faults = self._repair() if self._tables_due else []
        if self._fill_cluster() and self._cause:
            faults.append("the cluster's addresses were others")
        cause, self._cause = self._cause, ""
        self._tables_due = self._cluster_due = False
        if faults:
            self._tell(cause, "; ".join(faults), " ".join(map(str, self._spans)))
        return None

    def _tell(self, cause: str, before: str, after: str) -> None:
        if cause:
            self._teller.put_right(_NAME, "restored", _NAME, cause, before, after)
        else:
            self._teller.write("added", _NAME, "the plan", before, after)

    def _fill_cluster(self) -> bool:
        try:
            return ensure_cluster(self._want)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            self._repair()
            return ensure_cluster(self._want)

    def _repair(self) -> list[str]:
        try:
            return repair_rules(self._data_dir, _PATIENCE)
        except StoreBusy:
            self._busy_until = time.monotonic() + _BUSY_GAP
            raise


def _ends(span: Span) -> tuple[IPAddress, IPAddress]:
    size = _BYTES[span.version]
    first, last = (ip_address(n.to_bytes(size, "big")) for n in (span.first, span.last))
    return first, last
