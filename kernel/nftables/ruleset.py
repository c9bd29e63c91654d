"""podwire's tables, put together from the parts that features contribute.

A part is loaded by the first attachment that needs it. Masquerade and port mappings, which make the
kernel track every connection of the node (net/netfilter/nf_conntrack_proto.c, nf_ct_netns_get), and
ingress policies go with the last. One that can be switched off while pods run (DNS
counters), or is the daemon's alone (filter of peers), ensures its part by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from kernel.model import Element
from kernel.netlink.socket import Netlink
from kernel.nftables import (
    dns_counters,
    firewall,
    masquerade,
    peer_filter,
    port_mappings,
    spoof_check,
)
from kernel.nftables.generation import are_whole, note_whole
from kernel.nftables.set_messages import read_sets
from kernel.nftables.table import (
    Set,
    Table,
    delete_part,
    load,
    open_nft,
    read_rules,
    remove_tables,
)

HOST_PORTS, MASQUERADE, POLICIES = "host ports", "masquerade", "ingress policies"
PARTS: Mapping[str, Table] = {
    **{f"spoof check ({family})": part for family, part in spoof_check.PARTS.items()},
    MASQUERADE: masquerade.PART,
    HOST_PORTS: port_mappings.PART,
    POLICIES: firewall.PART,
}
"""What attachments need, by name."""
TRACKING = (HOST_PORTS, MASQUERADE)
"""Those by which the kernel tracks connections."""
TRANSIENT = (*TRACKING, POLICIES)
"""Those that cost all packets something, whoever needs them."""
FAMILIES = tuple(sorted({part.family for part in PARTS.values()}))
"""The families of podwire's tables."""

NODE_SETS: tuple[Set, ...] = (*masquerade.CLUSTER_SETS, *port_mappings.EXCLUSION_SETS)
"""The sets whose elements are the daemon's; parts have rules for them."""
NODE = Table("inet", sets=NODE_SETS)
"""What a node with a daemon needs, attachments or not."""
ATTACHMENT_SETS: tuple[Set, ...] = (
    *masquerade.HAIRPIN.values(),
    *port_mappings.SETS,
    *spoof_check.SETS,
    *firewall.SETS,
)
"""The sets that attachments put elements of their own into."""

_BITS = tuple((1 << number, name) for number, name in enumerate(PARTS))
_SETS = {(s.family, s.name): s for t in (*PARTS.values(), peer_filter.PART) for s in t.sets}
_PART_OF = {(s.family, s.name): name for name, part in PARTS.items() for s in part.sets}


def set_of(element: Element) -> Set:
    """The set that an element is of. Raises KeyError where podwire has none of that name."""
    return _SETS[element.family, element.set_name]


def part_of(element: Element) -> str:
    """The part that an attachment's element needs; empty where this version has no such set."""
    return _PART_OF.get((element.family, element.set_name), "")


def parts_of(elements: Iterable[Element]) -> list[Table]:
    """The parts that these elements of attachments need."""
    return [PARTS[name] for name in sorted(set(map(part_of, elements))) if name]


def are_parts_whole(generation: int, parts: Collection[str]) -> bool:
    """Whether these parts are known to be whole in this generation of the node's rules."""
    return are_whole(generation, _bits(parts))


def note_parts_whole(generation: int, parts: Collection[str]) -> None:
    """Note that these parts were whole; read the generation before the rules."""
    note_whole(generation, _bits(parts))


def _bits(parts: Collection[str]) -> int:
    return sum(bit for bit, name in _BITS if name in parts)


def load_parts(nl: Netlink, names: Collection[str]) -> None:
    """Create what is missing of these parts in one transaction. Raises KernelError, MissingTool."""
    more = [] if set(names).isdisjoint(TRACKING) else dns_counters.tracked_part(nl)
    load(*(PARTS[name] for name in sorted(names)), *more)


def remove_empty_parts(nl: Netlink, parts: Collection[str]) -> None:
    """Remove those of these parts of `inet` that are there, and whose sets have no element.

    The caller knows that no attachment is about to add one. Raises KernelError, MissingTool.
    """
    present = {rules.chain for rules in read_rules(nl, "inet")}
    for name in parts:
        part = PARTS[name]
        own = tuple(a_set for a_set in part.sets if a_set not in NODE_SETS)
        if present.isdisjoint(chain.name for chain in part.chains) or read_sets(nl, own):
            continue
        delete_part(replace(part, sets=own))
    dns_counters.end_tracking(nl)
    if not read_rules(nl, "inet") and not read_sets(nl, NODE_SETS):
        remove_tables(nl, keep=[family for family in FAMILIES if family != "inet"])


def remove_empty_tables() -> None:
    """Remove podwire's tables; for when the last attachment of the node is gone.

    Of the family inet what the daemon keeps there stays: the next pod's first packet needs it.
    """
    with open_nft() as nl:
        kept = bool(read_sets(nl, NODE_SETS))
        remove_tables(nl, keep=["inet"] if kept else [])
        if kept:
            remove_empty_parts(nl, [name for name, part in PARTS.items() if part.family == "inet"])
