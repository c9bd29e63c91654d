"""podwire's nftables rules, watched over: what is removed comes back, pods' traffic to other
nodes' pods is not masqueraded."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

from cni_plugin.repair import repair_rules
from daemon.spans import Span
from kernel.events import Event, RuleChange
from kernel.masquerade import ensure_cluster
from kernel.model import Element, IPAddress
from kernel.nft import CLUSTER_SETS, NETWORK_SETS, TABLE, cluster_elements

_BYTES = {4: 4, 6: 16}
_WATCHED = frozenset({*CLUSTER_SETS, *NETWORK_SETS})


class Rules:
    """due: whether they must be looked at; cause: why, where others touched them."""

    def __init__(self, data_dir: Path) -> None:
        self.due, self.cause = False, ""
        self._data_dir = data_dir
        self._spans: tuple[Span, ...] | None = None
        self._want: frozenset[Element] = frozenset()

    def aim(self, cluster: tuple[Span, ...]) -> None:
        """Take the addresses of all pods of the cluster."""
        if cluster != self._spans:
            self._spans, self._want = cluster, cluster_elements(map(_ends, cluster))
            self.due = True

    def note(self, event: Event, author: str) -> None:
        """Take an event in. Members of pods come and go; what all pods share does not."""
        change = event.noun
        if not isinstance(change, RuleChange) or change.table != TABLE:
            return
        mine = event.port == os.getpid()
        if mine or (change.what == "member" and change.name not in _WATCHED):
            return
        if event.deleted or change.what in ("rule", "member"):
            self.due, self.cause = True, f"changed by {author}"

    def ensure(self) -> list[str]:
        """Bring back what is missing; what was, in words. Raises KernelError, IpamError."""
        if self._spans is None:
            return []
        faults = repair_rules(self._data_dir)
        if ensure_cluster(self._want):
            faults.append("the cluster's addresses were others")
        self.due, self.cause = False, ""
        return faults

    def tell(self) -> str:
        """The addresses that are kept, in words."""
        return " ".join(map(str, self._spans or ()))


def _ends(span: Span) -> tuple[IPAddress, IPAddress]:
    size = _BYTES[span.version]
    first, last = (ip_address(n.to_bytes(size, "big")) for n in (span.first, span.last))
    return first, last
