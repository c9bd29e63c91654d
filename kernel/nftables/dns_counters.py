"""DNS that the node forwards, counted by the kernel: named counters in podwire's own table.

Packet path: after translation and before any filter, so that a query which a policy drops counts as
one without an answer. A packet that is no UDP costs one comparison. The direction of a packet comes
from connection tracking, which podwire's rules enable anyway: a cluster's DNS server may listen at
any port behind its service's 53.
"""

from __future__ import annotations

from typing import NamedTuple

from kernel.netlink.codec import Message, attributes, be32, text
from kernel.netlink.socket import Netlink
from kernel.nftables.table import (
    ABSENT,
    HEADER_BYTES,
    SUBSYSTEM,
    TABLE,
    Chain,
    Table,
    ensure_table,
    header,
    open_nft,
    render,
    run_nft,
    table_is_present,
)

_CHAIN = "dns"
_QUERIES, _ANSWERS = "dns_queries", "dns_answers"
_RULE = (
    "meta l4proto udp ct original proto-dst 53 counter name ct direction"
    f' map {{ original : "{_QUERIES}", reply : "{_ANSWERS}" }}'
)
PART = Table(
    "inet",
    chains=(Chain(_CHAIN, "type filter hook forward priority mangle", (_RULE,)),),
    counters=(_QUERIES, _ANSWERS),
)
_REMOVE = f"""
delete chain inet {TABLE} {_CHAIN}
delete counter inet {TABLE} {_QUERIES}
delete counter inet {TABLE} {_ANSWERS}
"""
# linux/netfilter/nf_tables.h
_GETOBJ = SUBSYSTEM | 19
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_OBJECT_COUNTER, _COUNTER_PACKETS = 1, 2


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
        found = _packets(nl, _QUERIES), _packets(nl, _ANSWERS)
    return None if None in found else DnsCount(*(n or 0 for n in found))


def stop_counting_dns() -> bool:
    """Remove chain and counters; whether they were there. Raises KernelError, MissingTool."""
    with open_nft() as nl:
        if _packets(nl, _QUERIES) is None:
            return False
    # Created first where one was removed, so that all can be deleted in one transaction.
    run_nft(render(PART) + _REMOVE)
    return True


def _packets(nl: Netlink, name: str) -> int | None:
    body = header("inet") + text(_OBJ_TABLE, TABLE) + text(_OBJ_NAME, name)
    body += be32(_OBJ_TYPE, _OBJECT_COUNTER)
    message = Message(_GETOBJ, 0, body, f"read nft counter {name}")
    found = nl.run([message], tolerate=ABSENT)[0].objects
    if not found:
        return None
    data = attributes(attributes(found[0].body, HEADER_BYTES).get(_OBJ_DATA, b""))
    return int.from_bytes(data.get(_COUNTER_PACKETS, b""), "big")
