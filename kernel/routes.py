"""Routes, neighbours and FDB entries to other nodes, read and changed by thousands.

Routes are podwire's by their mark (RTPROT_PODWIRE_PEERS); neighbours and FDB entries by their
link: everything permanent on podwire's VXLAN device is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kernel.diff import Key, key_of
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route
from kernel.netlink import links, neighbours, routes
from kernel.netlink.codec import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message
from kernel.netlink.socket import Netlink
from kernel.read import read_link

_PER_SEND = 512
_GONE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.ENXIO})
_LAYERS: tuple[type[Entry], ...] = (FdbEntry, Neighbour, Route)


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that the kernel refused; hint: its text."""

    entry: Entry
    errno: int
    hint: str


def read_entries(nl: Netlink, device: str | None) -> dict[Key, Entry]:
    """All routes that carry the peers' mark, and the permanent entries of the VXLAN device.

    A route that is not one entry (several next hops, or none) has an empty link name, and so equals
    no desired one.
    """
    names = _link_names(nl)
    found: dict[Key, Entry] = {}
    for entry in _read_all(nl, names, device):
        key = key_of(entry)
        found[key] = replace(entry, link="") if key in found else entry
    return found


def _read_all(nl: Netlink, names: Mapping[int, str], device: str | None) -> Iterator[Entry]:
    for version in (4, 6):
        for message in nl.dump(routes.list_routes(version, RTPROT_PODWIRE_PEERS)):
            route = routes.parse_named_route(message, names)
            if route is not None and route.protocol == RTPROT_PODWIRE_PEERS:
                yield route
    for index in [i for i, name in names.items() if name == device]:
        lists = (neighbours.list_neighbours(4, index), neighbours.list_neighbours(6, index))
        for message in (m for ask in (*lists, neighbours.list_fdb(index)) for m in nl.dump(ask)):
            where, entry, permanent = neighbours.parse_entry(message, names[index])
            if entry is not None and permanent and where == index:
                yield entry


def _link_names(nl: Netlink) -> dict[int, str]:
    """The links' names by index."""
    return {link.index: link.name for link in map(links.parse_link, nl.dump(links.list_links()))}


def find_rival(nl: Netlink, route: Route) -> Route | None:
    """Whose route is in this one's place; None where there is none (any more)."""
    names = _link_names(nl)
    for message in nl.dump(routes.list_routes(route.dst.version)):
        found = routes.parse_named_route(message, names)
        if found and key_of(found) == key_of(route) and found.protocol != route.protocol:
            return found
    return None


def change_entries(nl: Netlink, add: Sequence[Entry], remove: Sequence[Entry]) -> list[Failure]:
    """Add and remove any number of entries; what the kernel refused of them.

    An entry that replaces another stands in add, and the other in remove. No other route is ever
    replaced: one with the same destination is EEXIST. Removing what is gone is no failure, nor is
    adding a neighbour or an FDB entry that is there. First FDB entries and neighbours are added,
    then routes that need them; removal goes in the opposite order.
    """
    indexes = _indexes(nl, {entry.link for entry in (*add, *remove) if entry.link})
    old = {key_of(entry): entry for entry in remove}
    new = {key_of(entry) for entry in add} if old else set[Key]()
    steps: list[tuple[Entry, Message | None]] = []
    for layer in _LAYERS:
        for entry in add:
            if isinstance(entry, layer):
                steps += _adding(entry, old.get(key_of(entry)) if old else None, indexes)
    for layer in reversed(_LAYERS):
        for entry in remove:
            if isinstance(entry, layer) and key_of(entry) not in new:
                steps += _removing(entry, indexes.get(entry.link, 0))
    return _run(nl, steps)


def _indexes(nl: Netlink, names: Iterable[str]) -> dict[str, int]:
    links = (read_link(nl, name) for name in names)
    return {link.name: link.index for link in links if link is not None}


def _adding(
    entry: Entry, old: Entry | None, indexes: Mapping[str, int]
) -> list[tuple[Entry, Message | None]]:
    index = indexes.get(entry.link, 0)
    if not index:
        return [(entry, None)]
    if isinstance(entry, Neighbour):
        return [(entry, neighbours.add_neighbour(entry, index))]
    if isinstance(entry, FdbEntry):
        # A group of next hops cannot be replaced (vxlan_fdb_update_existing).
        departs = isinstance(old, FdbEntry) and old.more
        first = [(entry, neighbours.delete_fdb(entry, index))] if departs else []
        return [*first, (entry, neighbours.add_fdb(entry, index))]
    if entry.local:
        # Beside the kernel's own for the same address, while a device of earlier settings has it.
        gone = [(entry, routes.delete_route(old, 0))] if isinstance(old, Route) else []
        return [*gone, (entry, routes.set_route(entry, index, NLM_F_CREATE | NLM_F_APPEND))]
    if not isinstance(old, Route):
        return [(entry, routes.set_route(entry, index, NLM_F_CREATE | NLM_F_EXCL))]
    if old.link:
        return [(entry, routes.set_route(entry, index, NLM_F_CREATE | NLM_F_REPLACE))]
    # What has several next hops goes first.
    return [
        (entry, routes.delete_route(old, indexes.get(old.link, 0))),
        (entry, routes.set_route(entry, index, NLM_F_CREATE | NLM_F_EXCL)),
    ]


def _removing(entry: Entry, index: int) -> list[tuple[Entry, Message | None]]:
    if isinstance(entry, Route):
        return [(entry, routes.delete_route(entry, index))]
    if not index:
        return []  # gone with its link
    if isinstance(entry, Neighbour):
        return [(entry, neighbours.delete_neighbour(entry, index))]
    return [(entry, neighbours.delete_fdb(entry, index))]


def _run(nl: Netlink, steps: Sequence[tuple[Entry, Message | None]]) -> list[Failure]:
    failures = [Failure(e, errno.ENODEV, f"no link {e.link}") for e, m in steps if m is None]
    sent = [(entry, message) for entry, message in steps if message is not None]
    nl.make_room(min(len(sent), _PER_SEND))
    for start in range(0, len(sent), _PER_SEND):
        part = sent[start : start + _PER_SEND]
        answers = nl.exchange([message for _entry, message in part])
        for (entry, message), answer in zip(part, answers, strict=True):
            if answer.errno and not _is_gone(message, answer.errno):
                failures.append(Failure(entry, answer.errno, answer.hint))
    return failures


def _is_gone(message: Message, code: int) -> bool:
    return message.type in (routes.RTM_DELROUTE, neighbours.RTM_DELNEIGH) and code in _GONE
