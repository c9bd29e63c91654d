"""What may take packets at a link before or after all rules of the node: qdiscs, XDP programs."""

from __future__ import annotations

from collections.abc import Iterator

from kernel.model import Link
from kernel.netlink import links
from kernel.netlink import traffic_control as tc
from kernel.netlink.socket import Netlink

_USUAL = frozenset(
    {"noqueue", "noop", "mq", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq", "codel", "cake"}
)
"""Qdiscs that drop nothing but what is beyond their length."""


def describe_hooks(nl: Netlink, link: Link) -> str:
    """Those of a link, in a sentence; empty for none. Raises KernelError."""
    found = " and ".join(_hooks(nl, link.index))
    return f"{found} of {link.name} may drop packets" if found else ""


def _hooks(nl: Netlink, index: int) -> Iterator[str]:
    (answer,) = nl.exchange([links.get_link(index=index)])
    program = links.parse_xdp_program(answer.objects[0]) if answer.objects else 0
    if program:
        yield f"XDP program {program}"
    found = (tc.parse_qdisc(message) for message in nl.dump(tc.list_qdiscs()))
    kinds = (kind for at, kind in found if at == index and kind not in _USUAL)
    yield from (f"qdisc {kind}" for kind in kinds)
