"""The node's ends of veth pairs, with what tells of their other ends."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.model import Counters, Link
from kernel.netlink import links
from kernel.netlink.socket import Netlink
from kernel.read import with_bridge


@dataclass(frozen=True, slots=True)
class PairEnd:
    """One end of a pair, in the namespace of the reader.

    namespace: the number of the namespace that the other one is in (kernel.pod_side.read_number),
    -1 where it is the reader's own.
    """

    link: Link
    namespace: int
    counters: Counters


def read_pairs(nl: Netlink) -> list[PairEnd]:
    """All veth links of the namespace, bridge ports with their bridge's name."""
    messages = nl.dump(links.list_links(counters=True))
    found = [(links.parse_link(message), message) for message in messages]
    names = {str(link.index): link.name for link, _message in found}
    return [
        PairEnd(
            with_bridge(link, names),
            links.parse_peer_namespace(message),
            links.parse_counters(message),
        )
        for link, message in found
        if link.kind == "veth"
    ]
