"""The masquerade rules that all pods of a network share: static, brought to what is wanted."""

from __future__ import annotations

from collections.abc import Iterable

from kernel import nft
from kernel.errors import KernelError
from kernel.model import Element, IPNetwork
from kernel.netlink import Netlink


def masquerade_is_applied(groups: Iterable[Iterable[IPNetwork]]) -> bool:
    """Whether the sets hold exactly what these networks (groups of prefixes) need."""
    want = nft.masquerade_elements(groups)
    try:
        with nft.open_nft() as nl:
            return (_read(nl) or frozenset()) == want
    except KernelError:
        if want:
            raise
        return True  # a kernel without nftables has no rule too many


def apply_masquerade(groups: Iterable[Iterable[IPNetwork]]) -> None:
    """Bring the sets to what these networks need, in one transaction.

    The caller holds the store's lock: two nodes' worth of wishes would undo each other.
    """
    want = nft.masquerade_elements(groups)
    with nft.open_nft() as nl:
        have = _read(nl)
        if have is None and want:
            nft.load_skeleton("inet")
            have = _read(nl)
        have = have or frozenset()
        nft.change_elements(nl, want - have, have - want)


def remove_empty_tables() -> None:
    """Remove podwire's tables; for when the last attachment of the node is gone."""
    with nft.open_nft() as nl:
        nft.remove_tables(nl)


def _read(nl: Netlink) -> frozenset[Element] | None:
    have: set[Element] = set()
    for name in nft.NETWORK_SETS:
        elements = nft.read_elements(nl, "inet", name)
        if elements is None:
            return None
        have |= elements
    return frozenset(have)
