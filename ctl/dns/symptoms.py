"""What counters of pod and node show of lost DNS: read before and after the lookups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel.netns import Namespace, inside
from kernel.nftables.dns_counters import PART
from kernel.nftables.table import open_nft, read_counters

_UDP = {
    "RcvbufErrors": "datagrams that the pod's sockets had no room for: its programs read too late",
    "InErrors": "datagrams that the pod's kernel dropped",
    "SndbufErrors": "datagrams that the pod could not send: the link's queue is full",
}
_CONNTRACK = {
    "insert_failed": "connections that could not be noted, which drops their packet: two queries"
    " of one socket at once are known for it; `options single-request-reopen` ends that",
    "drop": "packets that connection tracking dropped: its table is full"
    " (net.netfilter.nf_conntrack_max)",
    "early_drop": "tracked connections that made room for others: raise"
    " net.netfilter.nf_conntrack_max",
}


@dataclass(frozen=True, slots=True)
class Symptoms:
    """udp: of the pod; conntrack: of the node, both by the kernel's names. dns: queries and answers
    that the node has forwarded for all its pods, None where they are not counted."""

    udp: dict[str, int]
    conntrack: dict[str, int]
    dns: tuple[int, int] | None


def read_symptoms(pod: Namespace) -> Symptoms:
    """All counters as they are now. Raises KernelError."""
    with inside(pod):
        # Of the thread's namespace, not of the process's (fs/proc/proc_net.c).
        udp = parse_snmp(Path("/proc/thread-self/net/snmp").read_text())
    with open_nft() as nl:
        counted = read_counters(nl, PART.counters)
    dns = (counted[0], counted[1]) if len(counted) == 2 else None
    return Symptoms(udp, _read_conntrack(), dns)


def parse_snmp(text: str) -> dict[str, int]:
    """The counters of UDP in /proc/net/snmp."""
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("Udp:")]
    if len(rows) != 2:
        return {}
    return {name: int(value) for name, value in zip(*rows, strict=False)}


def _read_conntrack() -> dict[str, int]:
    try:
        text = Path("/proc/net/stat/nf_conntrack").read_text()
    except OSError:  # the kernel was built without it, or tracks nothing
        return {}
    return parse_conntrack(text)


def parse_conntrack(text: str) -> dict[str, int]:
    """The sums of all processors' counters; numbers are hexadecimal."""
    head, *rows = text.splitlines() or [""]
    names = head.split()
    found = dict.fromkeys(names, 0)
    for row in rows:
        for name, value in zip(names, row.split(), strict=False):
            found[name] += int(value, 16)
    return found


def describe_symptoms(before: Symptoms, after: Symptoms) -> Iterator[str]:
    """What grew while the lookups were done."""
    for names, old, new in (
        (_UDP, before.udp, after.udp),
        (_CONNTRACK, before.conntrack, after.conntrack),
    ):
        for name, text in names.items():
            grown = new.get(name, 0) - old.get(name, 0)
            if grown > 0:
                yield f"{grown} {text}"
