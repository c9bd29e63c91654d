"""podwire's tables, put together from the parts that features contribute.

A feature that pods need for as long as they are there (masquerade, port mappings, spoof check) adds
its part here. One that can be switched off while they run (DNS counters), is the daemon's alone
(filter of peers), or costs all packets what few networks need (ingress policies) ensures it by
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kernel.model import Element
from kernel.nftables import firewall, masquerade, peer_filter, port_mappings, spoof_check
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
    *firewall.SETS,
)
"""The sets that attachments put elements of their own into."""

_OWN_PARTS = (peer_filter.PART, firewall.PART)
_SETS = {(s.family, s.name): s for t in (*TABLES.values(), *_OWN_PARTS) for s in t.sets}


def parts_of(elements: Collection[Element]) -> list[Table]:
    """The tables, and parts ensured by themselves, that these elements of attachments need."""
    families = sorted({element.family for element in elements})
    return [*(TABLES[family] for family in families), *policy_parts(elements)]


def policy_parts(elements: Collection[Element]) -> list[Table]:
    """The part of ingress policies, where one of the elements is of a policy."""
    return [firewall.PART] if firewall.shared(elements) else []


def set_of(element: Element) -> Set:
    """The set that an element is of. Raises KeyError where podwire has none of that name."""
    return _SETS[element.family, element.set_name]
