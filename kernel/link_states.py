"""What each link of a namespace has, read again and again by who keeps it so.

Most of it is the same each time: a message with the same bytes is not decoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar, cast

from kernel.model import Address, Link, Route, Space
from kernel.netlink import links, routes
from kernel.netlink.codec import Message
from kernel.netlink.socket import Netlink

T = TypeVar("T")


class LinkStates:
    """Reads links with their addresses and their routes of one mark (route protocol)."""

    def __init__(self, nl: Netlink, protocol: int) -> None:
        self._nl, self._protocol = nl, protocol
        self._known: dict[tuple[str, bytes], object] = {}
        self._fresh: dict[tuple[str, bytes], object] = {}

    def read(self) -> dict[str, Space]:
        """By the name of each link, itself, its addresses and its routes. Raises KernelError.

        What did not change is the same object as before.
        """
        self._known, self._fresh = self._fresh, {}
        names: dict[int, str] = {}
        present = list(self._read_links(names))
        addresses: dict[str, list[Address]] = {}
        for address in self._read_addresses(names):
            addresses.setdefault(address.link, []).append(address)
        through: dict[str, list[Route]] = {}
        for route in self._read_routes(names):
            through.setdefault(route.link, []).append(route)
        return {
            link.name: Space(
                (link,), tuple(addresses.get(link.name, ())), tuple(through.get(link.name, ()))
            )
            for link in present
        }

    def _once(self, message: Message, name: str, parse: Callable[[Message, str], T]) -> T:
        """What `parse` makes of the two, or made of them last time."""
        key = (name, message.body)
        value = self._known[key] if key in self._known else parse(message, name)
        self._fresh[key] = value
        return cast(T, value)

    def _read_links(self, names: dict[int, str]) -> Iterator[Link]:
        """The links. names: takes their names by index."""
        found = [self._once(m, "", _link) for m in self._nl.dump(links.list_links())]
        names |= {link.index: link.name for link in found}
        for link in found:
            port = link.port
            name = names.get(int(port.bridge), "") if port else ""
            yield replace(link, port=replace(port, bridge=name)) if port else link

    def _read_addresses(self, names: dict[int, str]) -> Iterator[Address]:
        for message in self._nl.dump(links.list_addresses()):
            name = names.get(links.address_index(message))
            if name:
                yield self._once(message, name, _address)

    def _read_routes(self, names: dict[int, str]) -> Iterator[Route]:
        for version in (4, 6):
            for message in self._nl.dump(routes.list_routes(version, self._protocol)):
                for index, _route in self._once(message, "", _hops)[:1]:
                    yield self._once(message, names.get(index, _GONE), _route_through)


_GONE = "?"  # a link that went between the reads; no link's name has this


def _link(message: Message, _name: str) -> Link:
    return links.parse_link(message)


def _address(message: Message, name: str) -> Address:
    return replace(links.parse_address(message)[1], link=name)


def _hops(message: Message, _name: str) -> list[tuple[int, Route]]:
    return routes.parse_route(message)


def _route_through(message: Message, name: str) -> Route:
    return replace(routes.parse_route(message)[0][1], link=name)
