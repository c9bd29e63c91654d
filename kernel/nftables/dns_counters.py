"""DNS that the node forwards, counted by the kernel: named counters in podwire's own table.

Packet path: after translation and before any filter, so that a query which a policy drops counts as
one without an answer. A packet that is no UDP costs one comparison. A cluster's DNS server may
listen at any port behind its service's 53, which connection tracking knows: it is asked where other
rules of podwire's have the kernel track connections, and never the reason for that.
"""

from __future__ import annotations

from typing import NamedTuple

from kernel.netlink.socket import Netlink
from kernel.nftables.masquerade import PART as MASQUERADE
from kernel.nftables.port_mappings import PART as HOST_PORTS
from kernel.nftables.table import (
    Chain,
    Table,
    ensure_table,
    load,
    open_nft,
    read_counters,
    read_rules,
    remove_part,
    table_is_present,
)

_QUERIES, _ANSWERS = "dns_queries", "dns_answers"
_TRACKED = (
    "meta l4proto udp ct original proto-dst 53 counter name ct direction"
    f' map {{ original : "{_QUERIES}", reply : "{_ANSWERS}" }}',
)
_UNTRACKED = (
    f'udp dport 53 udp sport != 53 counter name "{_QUERIES}"',
    f'udp sport 53 udp dport != 53 counter name "{_ANSWERS}"',
)


def _part(rules: tuple[str, ...]) -> Table:
    chain = Chain("dns", "type filter hook forward priority mangle", rules)
    return Table("inet", chains=(chain,), counters=(_QUERIES, _ANSWERS))


PART, TRACKED_PART = _part(_UNTRACKED), _part(_TRACKED)
"""By the ports of packets, and by those of connections."""
_TRACKING = frozenset(c.name for part in (MASQUERADE, HOST_PORTS) for c in part.chains)


class DnsCount(NamedTuple):
    """UDP packets of DNS, since the counters were made."""

    queries: int
    answers: int


def count_dns() -> DnsCount | None:
    """What was counted so far; counting begins where it had not.

    None while podwire has no table here. Raises KernelError, MissingTool.
    """
    with open_nft() as nl:
        if not table_is_present(nl, "inet"):
            return None
        ensure_table(nl, TRACKED_PART if _TRACKING & _chains(nl) else PART)
        found = read_counters(nl, PART.counters)
    return DnsCount(*found) if found else None


def _chains(nl: Netlink) -> set[str]:
    return {rules.chain for rules in read_rules(nl, "inet")}


def tracked_part(nl: Netlink) -> list[Table]:
    """The part to load with rules that have connections tracked, where DNS is counted."""
    return [TRACKED_PART] if PART.chains[0].name in _chains(nl) else []


def end_tracking(nl: Netlink) -> None:
    """Count by ports where no other rules have connections tracked.

    Raises KernelError, MissingTool.
    """
    chains = _chains(nl)
    if PART.chains[0].name in chains and not _TRACKING & chains:
        load(PART)


def stop_counting_dns() -> bool:
    """Remove chain and counters; whether they were there. Raises KernelError, MissingTool."""
    return remove_part(PART)
