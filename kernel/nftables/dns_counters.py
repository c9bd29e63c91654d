"""DNS that the node passes on, counted by the kernel: named counters in podwire's own table.

Packet path: after translation and before any filter, so that a query which a policy drops counts as
one without an answer. A packet that is no UDP costs one comparison. Who asked what is told by
connection tracking, which podwire's rules turn on anyway: a cluster's DNS server may listen at any
port behind its service's 53.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from kernel.netlink.codec import Message, attributes, be32, text
from kernel.netlink.socket import Netlink
from kernel.nftables.table import TABLE, open_nft, run_nft, table_is_present

_CHAIN = "dns"
_QUERIES, _ANSWERS = "dns_queries", "dns_answers"
_MAKE = f"""
add counter inet {TABLE} {_QUERIES}
add counter inet {TABLE} {_ANSWERS}
add chain inet {TABLE} {_CHAIN} {{ type filter hook forward priority mangle; policy accept; }}
flush chain inet {TABLE} {_CHAIN}
add rule inet {TABLE} {_CHAIN} meta l4proto udp ct original proto-dst 53 \
counter name ct direction map {{ original : "{_QUERIES}", reply : "{_ANSWERS}" }}
"""
_REMOVE = f"""
delete chain inet {TABLE} {_CHAIN}
delete counter inet {TABLE} {_QUERIES}
delete counter inet {TABLE} {_ANSWERS}
"""
_ABSENT = frozenset({errno.ENOENT})
# linux/netfilter/nf_tables.h
_GETCHAIN, _GETOBJ = 10 << 8 | 4, 10 << 8 | 19
_NFPROTO_INET = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_USE = 1, 3, 6
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_OBJECT_COUNTER, _COUNTER_PACKETS = 1, 2
_HEAD = struct.pack("!BBH", _NFPROTO_INET, 0, 0)


class DnsCount(NamedTuple):
    """UDP packets of DNS, since the counters were made."""

    queries: int
    answers: int


def count_dns() -> DnsCount | None:
    """What was counted so far; counting begins where it had not.

    None while podwire has no table here. Raises KernelError, MissingTool.
    """
    with open_nft() as nl:
        if _rules(nl) != 1:
            if not table_is_present(nl, "inet"):
                return None
            run_nft(_MAKE)
        found = _packets(nl, _QUERIES), _packets(nl, _ANSWERS)
    return None if None in found else DnsCount(*(n or 0 for n in found))


def stop_counting_dns() -> bool:
    """Remove chain and counters; whether they were there. Raises KernelError, MissingTool."""
    with open_nft() as nl:
        if _rules(nl) is None:
            return False
    run_nft(_REMOVE)
    return True


def _rules(nl: Netlink) -> int | None:
    """How many rules the chain has; None where it is missing."""
    body = _HEAD + text(_CHAIN_TABLE, TABLE) + text(_CHAIN_NAME, _CHAIN)
    found = nl.run([Message(_GETCHAIN, 0, body, "look up nft chain")], tolerate=_ABSENT)[0].objects
    if not found:
        return None
    return int.from_bytes(attributes(found[0].body, 4).get(_CHAIN_USE, b""), "big")


def _packets(nl: Netlink, name: str) -> int | None:
    body = _HEAD + text(_OBJ_TABLE, TABLE) + text(_OBJ_NAME, name)
    body += be32(_OBJ_TYPE, _OBJECT_COUNTER)
    message = Message(_GETOBJ, 0, body, f"read nft counter {name}")
    found = nl.run([message], tolerate=_ABSENT)[0].objects
    if not found:
        return None
    data = attributes(attributes(found[0].body, 4).get(_OBJ_DATA, b""))
    return int.from_bytes(data.get(_COUNTER_PACKETS, b""), "big")
