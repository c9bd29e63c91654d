"""Pods that kept the addresses of a pod CIDR that this node no longer has."""

from __future__ import annotations

import time
from collections.abc import Sequence

from daemon.config.schema import Settings
from daemon.routing.reporter import Reporter
from ipam.errors import IpamError
from ipam.store import read_store
from kernel.model import IPAddress, IPNetwork

_AGAIN = 10.0
"""Seconds between two searches while there are such pods."""
_NAMED = 3


class StalePods:
    """Searches for them where the pod CIDRs changed, and reports them as the fault "pods"."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._cidrs: Sequence[IPNetwork] | None = None
        self._next = 0.0

    def resync(self) -> None:
        """Search at the next opportunity, whether the pod CIDRs changed or not."""
        self._next = 0.0

    def check(self, cidrs: Sequence[IPNetwork]) -> None:
        """Search for pods of our network with addresses outside these prefixes, if it is due."""
        now, changed = time.monotonic(), cidrs != self._cidrs
        if not cidrs or not (changed or now >= self._next):
            return
        self._cidrs = cidrs
        try:
            text = _describe(self._find(cidrs))
        except IpamError as error:
            self._reporter.report_failure(f"could not search for pods of former pod CIDRs: {error}")
            self._next = now + _AGAIN
            return
        self._next = now + _AGAIN if text else float("inf")
        if self._reporter.faults.set("pods", text):
            self._reporter.log.warning(text)

    def _find(self, cidrs: Sequence[IPNetwork]) -> dict[object, IPAddress]:
        """By pod, one of its addresses that is in none of the prefixes. Raises IpamError."""
        conflist = self._settings.conflist
        if conflist is None:
            return {}
        # Networks of other configurations have prefixes of their own.
        name = conflist.name
        found = read_store(self._settings.data_dir, lambda tx: tx.allocations(name))
        return {
            (a.owner.container_id, a.owner.ifname): a.address
            for a in found or ()
            if not any(a.address in cidr for cidr in cidrs)
        }


def _describe(found: dict[object, IPAddress]) -> str:
    if not found:
        return ""
    named = ", ".join(map(str, list(found.values())[:_NAMED]))
    more = ", ..." if len(found) > _NAMED else ""
    have = "1 pod has an address" if len(found) == 1 else f"{len(found)} pods have addresses"
    return (
        f"{have} of no pod CIDR of this node ({named}{more}); no other node routes to them:"
        " recreate them"
    )
