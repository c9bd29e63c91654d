"""What plugins and features add to an attachment that is there: applied, compared, taken away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack

from kernel.attach import add_elements, check_parts, delete_links, run_in
from kernel.diff import Change, Noun
from kernel.forwarding import apply_node_settings
from kernel.model import Acceptance, Element, Link, Piece, Sysctl
from kernel.netlink import links
from kernel.netlink.codec import Message
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace, inside
from kernel.nftables import firewall
from kernel.nftables.port_mappings import forget_datagrams
from kernel.nftables.set_messages import remove_elements
from kernel.nftables.table import ensure_table, open_nft
from kernel.read import read_link
from kernel.sysctl import apply_sysctl, read_sysctl


def apply_piece(
    nl: Netlink, pod: Namespace | None, piece: Piece, shared: Collection[Element] = ()
) -> None:
    """Everything in the piece, or nothing. Raises KernelError, KeyTaken.

    pod: its namespace; None where the piece has no share in it. shared: elements that the
    attachment needs besides, and that stay whatever happens.
    """
    with ExitStack() as undo:
        if piece.node.buckets:
            from kernel.traffic_control import add_limits  # few attachments have limits

            add_limits(nl, piece.node, undo)
        if pod is not None:
            _change_pod(pod, piece, undo)
        if piece.elements:
            added: list[Element] = []
            undo.callback(lambda: _remove_elements(added, shared))
            if firewall.shared(piece.elements):
                with open_nft() as nfnl:
                    ensure_table(nfnl, firewall.PART)
            add_elements(piece.elements, added)
            forget_datagrams(piece.elements)
        if piece.acceptance:
            from kernel.acceptance import accept, withdraw  # few networks need it

            accept(piece.acceptance)
            undo.callback(withdraw, piece.acceptance)
        # Last, for these cannot be undone: other attachments may rely on them a moment later.
        apply_node_settings(nl, piece.node.sysctls)
        undo.pop_all()


def _change_pod(pod: Namespace, piece: Piece, undo: ExitStack) -> None:
    desired = piece.pod
    with inside(pod):
        found = ((s.path, read_sysctl(s.path)) for s in desired.sysctls)
        before = [Sysctl(path, value, required=False) for path, value in found if value is not None]
        undo.callback(_write_settings, pod, before)
        for setting in desired.sysctls:
            apply_sysctl(setting)
    for link in desired.links:
        if piece.original:
            undo.callback(_restore_link, pod, link, piece.original)
        with run_in(pod) as nl:
            nl.run(list(_trait_messages(link)))


def _write_settings(pod: Namespace, settings: list[Sysctl]) -> None:
    with inside(pod):
        for setting in settings:
            apply_sysctl(setting)


def _trait_messages(link: Link) -> Iterator[Message]:
    """One for each trait that the noun names, so that an error says which one it was."""
    if link.mac:
        yield links.set_mac(link.name, link.mac)
    if link.promisc:
        yield links.set_flags(link.name, links.IFF_PROMISC)
    if link.mtu:
        yield links.set_mtu(link.name, link.mtu)
    if link.allmulti is not None:
        change = links.set_flags if link.allmulti else links.clear_flags
        yield change(link.name, links.IFF_ALLMULTI)
    if link.queue_length is not None:
        yield links.set_queue_length(link.name, link.queue_length)


def _restore_link(pod: Namespace, changed: Link, original: Link) -> None:
    """Give the link the traits back that were changed, if it is still the one.

    The path of a namespace may lead to another pod by now: the link has one of the two MACs.
    """
    before = Link(
        original.name,
        mac=original.mac if changed.mac else None,
        mtu=original.mtu if changed.mtu else None,
        allmulti=None if changed.allmulti is None else original.allmulti,
        queue_length=None if changed.queue_length is None else original.queue_length,
    )
    with run_in(pod) as nl:
        link = read_link(nl, original.name)
    if link is not None and link.mac in (changed.mac, original.mac):
        restore_traits(pod, before, clear_promisc=changed.promisc and not original.promisc)


def restore_traits(pod: Namespace, link: Link, *, clear_promisc: bool = False) -> None:
    """Give a link of the pod the traits that the noun names. Raises KernelError."""
    messages = list(_trait_messages(link))
    if clear_promisc:
        messages.append(links.clear_flags(link.name, links.IFF_PROMISC))
    with run_in(pod) as nl:
        nl.run(messages)


def remove_piece(
    nl: Netlink,
    pod: Namespace | None,
    piece: Piece,
    shared: Collection[Element] = (),
    delete: Callable[[Netlink, Sequence[str]], bool] = delete_links,
) -> None:
    """Take away what the piece has alone, and give the pod's link its traits back.

    pod: its namespace; None where it is gone. delete: deletes links by name. Settings stay, and
    elements that other attachments may need, too. Raises KernelError.
    """
    if piece.node.buckets:
        from kernel.traffic_control import lift_limits  # few attachments have limits

        going = lift_limits(nl, piece.node)
        if going:
            delete(nl, going)
    if piece.elements:
        _remove_elements(piece.elements, shared)
        forget_datagrams(piece.elements)
    if piece.acceptance:
        from kernel.acceptance import withdraw

        withdraw(piece.acceptance)
    if pod is not None and piece.original:
        _restore_link(pod, piece.pod.links[0], piece.original)


def _remove_elements(elements: Collection[Element], shared: Collection[Element]) -> None:
    kept = {*shared, *firewall.shared(elements)}
    with open_nft() as nl:
        remove_elements(nl, [element for element in elements if element not in kept])


def check_piece(nl: Netlink, pod: Namespace | None, piece: Piece) -> list[tuple[str, Change[Noun]]]:
    """(where, difference) of the piece and the kernel, as `kernel.attach.check`."""
    found = check_parts(nl, piece.node, pod, piece.pod, piece.elements)
    return [*found, *(("", change) for change in acceptance_faults([piece]))]


def acceptance_faults(pieces: Collection[Piece]) -> list[Change[Acceptance]]:
    """What filters of other programs do not accept, though these pieces ask for it."""
    desired = [piece.acceptance for piece in pieces if piece.acceptance]
    if not desired:
        return []
    from kernel.acceptance import acceptance_changes

    return [change for each in desired for change in acceptance_changes(each)]
