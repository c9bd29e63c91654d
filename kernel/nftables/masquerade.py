"""The masquerade rules that all pods of a network share: static, brought to what is wanted."""

from __future__ import annotations

from collections.abc import Iterable

from kernel.errors import KernelError
from kernel.model import Element, IPNetwork
from kernel.netlink.socket import Netlink
from kernel.nftables import table as nft


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
    """Remove podwire's tables; for when the last attachment of the node is gone.

    They stay while the daemon keeps members there: the next pod's first packet needs them.
    """
    with nft.open_nft() as nl:
        if not any(nft.read_elements(nl, "inet", name) for name in nft.CLUSTER_SETS):
            nft.remove_tables(nl)


def ensure_cluster(want: frozenset[Element]) -> bool:
    """Bring the cluster sets to these members; whether they were others. The tables are there.

    Raises KernelError, with errno ENOENT where the tables are missing.
    """
    with nft.open_nft() as nl:
        have: set[Element] = set()
        for name in nft.CLUSTER_SETS:
            have |= nft.read_elements(nl, "inet", name) or frozenset()
        if have == want:
            return False
        nft.exchange_elements(nl, want - have, have - want)
    return True


def _read(nl: Netlink) -> frozenset[Element] | None:
    have: set[Element] = set()
    for name in nft.NETWORK_SETS:
        elements = nft.read_elements(nl, "inet", name)
        if elements is None:
            return None
        have |= elements
    return frozenset(have)
