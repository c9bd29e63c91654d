"""podwire's tables, put together from the parts that features contribute.

A feature that pods need for as long as they are there (masquerade, port mappings, spoof check) adds
its part here; one that can be switched off while they run (DNS counters) ensures it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernel.model import Element
from kernel.nftables import masquerade, port_mappings, spoof_check
from kernel.nftables.table import Set, Table

TABLES: Mapping[str, Table] = {
    "inet": masquerade.PART + port_mappings.PART,
    "bridge": spoof_check.PART,
}
"""By family."""

ATTACHMENT_SETS: tuple[Set, ...] = (
    *masquerade.HAIRPIN.values(),
    *port_mappings.SETS,
    *spoof_check.SETS,
)
"""The sets that attachments put elements of their own into."""

_SETS = {(s.family, s.name): s for table in TABLES.values() for s in table.sets}


def set_of(element: Element) -> Set:
    """The set that an element is of. Raises KeyError where podwire has none of that name."""
    return _SETS[element.family, element.set_name]
