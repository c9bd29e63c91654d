"""Pods that kept the addresses of a pod CIDR that this node has no more."""

from __future__ import annotations

import time
from collections.abc import Sequence

from daemon.config.schema import Settings
from daemon.routing.reporter import Teller
from ipam.errors import IpamError
from ipam.files import Files
from ipam.store import open_store
from kernel.model import IPAddress, IPNetwork

_AGAIN = 10.0
"""Seconds between looks while there are any."""
_PATIENCE = 0.1
"""Seconds to wait for a store that others lock."""
_NAMED = 3


class Stranded:
    """told: how many there are and what is to be done, in words; empty where there are none."""

    def __init__(self, settings: Settings, teller: Teller) -> None:
        self.told = ""
        self._settings, self._teller = settings, teller
        self._cidrs: Sequence[IPNetwork] | None = None
        self._next = 0.0

    def look_soon(self) -> None:
        """Look at the next opportunity, whether anything changed or not."""
        self._next = 0.0

    def look(self, cidrs: Sequence[IPNetwork]) -> None:
        """Look whether the pods of our network have addresses of these prefixes, if it is due."""
        now, changed = time.monotonic(), cidrs != self._cidrs
        if not cidrs or not (changed or now >= self._next):
            return
        self._cidrs = cidrs
        try:
            told = _tell(self._find(cidrs))
        except IpamError as error:
            self._teller.fail(f"look for pods of former pod CIDRs: {error}")
            self._next = now + _AGAIN
            return
        self._next = now + _AGAIN if told else float("inf")
        if told and told != self.told:
            self._teller.log.warning(told)
        self.told = told

    def _find(self, cidrs: Sequence[IPNetwork]) -> dict[object, IPAddress]:
        """By pod, one of its addresses that is in none of the prefixes. Raises IpamError."""
        conflist, folder = self._settings.conflist, self._settings.data_dir
        # Others' networks have prefixes of their own.
        if conflist is None or not Files(folder).database.exists():
            return {}
        with (
            open_store(folder, create=False, patience=_PATIENCE) as store,
            store.read() as tx,
        ):
            found = tx.allocations(conflist.name)
        return {
            (a.owner.container_id, a.owner.ifname): a.address
            for a in found
            if not any(a.address in cidr for cidr in cidrs)
        }


def _tell(found: dict[object, IPAddress]) -> str:
    if not found:
        return ""
    named = ", ".join(map(str, list(found.values())[:_NAMED]))
    more = ", ..." if len(found) > _NAMED else ""
    have = "1 pod has an address" if len(found) == 1 else f"{len(found)} pods have addresses"
    return (
        f"{have} of no pod CIDR of this node ({named}{more}), which nobody routes to this node any"
        " more: recreate them"
    )
