"""podwire's tables, put together from the parts that features contribute.

A feature that pods need for as long as they are there (masquerade, port mappings, spoof check) adds
its part here; one that can be switched off while they run (DNS counters), or is the daemon's alone
(filter of peers), ensures it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernel.model import Element
from kernel.nftables import masquerade, peer_filter, port_mappings, spoof_check
from kernel.nftables.table import Set, Table

TABLES: Mapping[str, Table] = {
    **spoof_check.PARTS,
    "inet": masquerade.PART + port_mappings.PART + spoof_check.PARTS["inet"],
}
"""By family."""

ATTACHMENT_SETS: tuple[Set, ...] = (
    *masquerade.HAIRPIN.values(),
    *port_mappings.SETS,
    *spoof_check.SETS,
)
"""The sets that attachments put elements of their own into."""

_SETS = {(s.family, s.name): s for t in (*TABLES.values(), peer_filter.PART) for s in t.sets}


def set_of(element: Element) -> Set:
    """The set that an element is of. Raises KeyError where podwire has none of that name."""
    return _SETS[element.family, element.set_name]
