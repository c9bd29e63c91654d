"""DNS that the node forwards, counted by the kernel: named counters in podwire's own table.

Packet path: after translation and before any filter, so that a query which a policy drops counts as
one without an answer. A packet that is no UDP costs one comparison. The direction of a packet comes
from connection tracking, which podwire's rules enable anyway: a cluster's DNS server may listen at
any port behind its service's 53.
"""

from __future__ import annotations

from typing import NamedTuple

from kernel.nftables.table import (
    Chain,
    Table,
    ensure_table,
    open_nft,
    read_counters,
    remove_part,
    table_is_present,
)

_QUERIES, _ANSWERS = "dns_queries", "dns_answers"
_RULE = (
    "meta l4proto udp ct original proto-dst 53 counter name ct direction"
    f' map {{ original : "{_QUERIES}", reply : "{_ANSWERS}" }}'
)
PART = Table(
    "inet",
    chains=(Chain("dns", "type filter hook forward priority mangle", (_RULE,)),),
    counters=(_QUERIES, _ANSWERS),
)


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
        ensure_table(nl, PART)
        found = read_counters(nl, PART.counters)
    return DnsCount(*found) if found else None


def stop_counting_dns() -> bool:
    """Remove chain and counters; whether they were there. Raises KernelError, MissingTool."""
    return remove_part(PART)
