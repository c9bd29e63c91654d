"""The facts of this node, read from its kernel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from daemon.routing.facts import Facts
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    TABLE_MAIN,
    Address,
    Link,
    Route,
)
from kernel.netlink import links as rtnl
from kernel.netlink.codec import Message
from kernel.netlink.monitor import Event
from kernel.netlink.socket import Netlink
from kernel.read import read_links
from kernel.routes import read_any_route

# The node's ends of pods' pairs: they come and go all the time, and no plan rests on them.
_POD_LINK = re.compile(r"pw[0-9a-f]{11}\Z")
# struct rtmsg (linux/rtnetlink.h): the table and the protocol are its fifth and sixth byte.
_AT_TABLE, _AT_PROTOCOL = 4, 5


def read_facts(nl: Netlink) -> Facts:
    """The node as it is. Raises KernelError."""
    addresses = [rtnl.read_address(m) for m in nl.dump(rtnl.list_addresses(0))]
    routes = list(_dump_routes(nl))
    # Last: by then every link that had an address has the alias that tells whose it is, for that
    # comes first, and what belongs to a link that has gone is of no meaning.
    links = read_links(nl)
    names = {link.index: link.name for link in links}
    known = tuple(replace(a, link=names[i]) for i, a in addresses if i in names)
    return Facts(tuple(links), known, tuple(_read_routes(routes, names)))


def _dump_routes(nl: Netlink) -> Iterator[Message]:
    for version in (4, 6):
        for message in nl.dump(rtnl.list_routes(version)):
            # Before anything is decoded: there are thousands to other nodes.
            if (
                message.body[_AT_PROTOCOL] != RTPROT_PODWIRE_PEERS
                and message.body[_AT_TABLE] == TABLE_MAIN
            ):
                yield message


def _read_routes(messages: Iterable[Message], names: Mapping[int, str]) -> Iterator[Route]:
    for message in messages:
        found = rtnl.read_route(message)
        yield from (replace(route, link=names[i]) for i, route in found if i in names)
        hole = None if found else read_any_route(message, {})
        if hole:
            yield hole


def matters(event: Event, facts: Facts) -> bool:
    """Whether an event may have changed what plans rest on."""
    noun = event.noun
    if isinstance(noun, Route):
        return noun.protocol not in (RTPROT_PODWIRE, RTPROT_PODWIRE_PEERS)
    if isinstance(noun, Address):
        return not _POD_LINK.match(noun.link)
    if isinstance(noun, Link) and not _POD_LINK.match(noun.name):
        known = next((link for link in facts.links if link.index == noun.index), None)
        # A port's event names its bridge by index.
        return event.deleted or known is None or _plain(known) != _plain(noun)
    return False


def _plain(link: Link) -> Link:
    return replace(link, port=None)
