"""podwire's nftables rules, watched over: what is removed comes back, and what pods send to other
nodes' pods is not masqueraded."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from cni_plugin.rule_repair import TABLE_LACKS, Lack, find_lacks, repair_rules
from daemon.prefix_set import Block
from daemon.routing.authors import is_own
from daemon.routing.reporter import Teller
from ipam.errors import StoreBusy
from kernel.errors import KernelError
from kernel.model import Element, IPAddress
from kernel.netlink.monitor import RuleChange
from kernel.nftables.masquerade import ensure_cluster
from kernel.nftables.table import (
    ATTACHMENT_SETS,
    CLUSTER_SETS,
    NETWORK_SETS,
    TABLE,
    cluster_elements,
)

T = TypeVar("T")

_BYTES = {4: 4, 6: 16}
_SHARED = frozenset({*CLUSTER_SETS, *NETWORK_SETS})
_PODS = frozenset(name for _family, name in ATTACHMENT_SETS)
_NAME = "nftables rules"
_PATIENCE = 0.1
"""Seconds that routes may wait for a store that another process locks."""
_BUSY_GAP = 1.0
GRACE = 0.3
"""Seconds for which something must be missing to be called damage: a DEL under way is over then."""
YOUNG = 2.0
"""Seconds that a link must have been there: an ADD makes it first, and its members last."""


class Rules:
    """The tables, what all pods share, and what each of them has in the sets."""

    def __init__(self, data_dir: Path, teller: Teller) -> None:
        self._data_dir, self._teller = data_dir, teller
        self._blocks: tuple[Block, ...] | None = None
        self._want: frozenset[Element] = frozenset()
        self._tables_due, self._cluster_due, self._cause = True, False, ""
        self._busy_until = self._look_at = 0.0
        self._suspects: frozenset[Lack] = frozenset()
        self._born: dict[int, float] = {}

    @property
    def is_due(self) -> bool:
        """Whether they must be looked at."""
        return self._tables_due or self._cluster_due

    @property
    def is_planned(self) -> bool:
        """Whether the plan changed them: then they come before the routes, whose packets would be
        masqueraded for as long as a connection lasts."""
        return self._cluster_due

    def aim(self, cluster: tuple[Block, ...]) -> None:
        """Take the addresses of all pods of the cluster."""
        if cluster != self._blocks:
            self._blocks, self._want = cluster, cluster_elements(map(_ends, cluster))
            self._cluster_due = True

    def note(self, change: RuleChange, *, deleted: bool, port: int, cause: str) -> None:
        """Take an event in."""
        if change.table != TABLE:
            return
        if change.what == "member":
            # Pods that come and go by podwire's executable add theirs.
            matters = change.name in _SHARED or (deleted and change.name in _PODS)
        else:
            matters = deleted or change.what == "rule"
        if matters and not is_own(port):
            self.look(cause)

    def note_link(self, index: int, *, deleted: bool) -> None:
        """Take the event of a link in: an ADD may be at work on one that is new."""
        if deleted:
            self._born.pop(index, None)
        else:
            self._born.setdefault(index, time.monotonic())

    def look(self, cause: str) -> None:
        """Look at everything, for what others may have done."""
        self._tables_due, self._cause = True, cause

    def mend(self) -> float | None:
        """Bring back what is missing; seconds until that may be. Raises KernelError, IpamError."""
        if self._blocks is None or not (self._tables_due or self._cluster_due):
            return None
        now = time.monotonic()
        wait = max(self._teller.wait_for(_NAME), self._busy_until - now)
        if wait > 0:
            return wait
        looks = self._tables_due and now >= self._look_at
        if not looks and not self._cluster_due:
            return self._look_at - now
        faults = self._heal() if looks else []
        if self._fill_cluster() and not self._cluster_due:
            faults.append("the cluster's addresses were others")
        self._cluster_due = False
        if faults:
            self._tell(self._cause, "; ".join(faults), " ".join(map(str, self._blocks)))
        if looks:
            return self._rest()
        return self._look_at - now if self._tables_due else None

    def _rest(self) -> float | None:
        if self._suspects:
            return GRACE
        self._tables_due, self._cause = False, ""
        return None

    def _heal(self) -> list[str]:
        """Bring back what has been missing for long enough; what was, in words."""
        found = self._locked(find_lacks)
        certain = {lack for lack in found if lack == TABLE_LACKS or self._is_damage(lack)}
        faults = self._locked(partial(repair_rules, lacks=certain)) if certain else []
        self._suspects = frozenset() if TABLE_LACKS in certain else found - certain
        self._look_at = time.monotonic() + GRACE
        return faults

    def _is_damage(self, lack: Lack) -> bool:
        _what, link = lack
        return lack in self._suspects and time.monotonic() - self._born.get(link, -YOUNG) >= YOUNG

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
            self._locked(partial(repair_rules, lacks={TABLE_LACKS}))
            return ensure_cluster(self._want)

    def _locked(self, act: Callable[..., T]) -> T:
        """Do what needs the store; one that is locked for long is left in peace for a while."""
        try:
            return act(self._data_dir, patience=_PATIENCE)
        except StoreBusy:
            self._busy_until = time.monotonic() + _BUSY_GAP
            raise


def _ends(block: Block) -> tuple[IPAddress, IPAddress]:
    size = _BYTES[block.version]
    first, last = (ip_address(n.to_bytes(size, "big")) for n in (block.first, block.last))
    return first, last
