"""Addresses as the store keeps them: one byte of family, then the address, big-endian.

Blobs of one family have one length, so SQLite's byte order is the order of the addresses; the
family byte keeps an IPv6 address from sorting in between IPv4 addresses.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from ipam.ranges import IPAddress


class NotAnAddress(ValueError):
    """A blob in the database that no `encode` ever wrote: the database is damaged."""


def encode(address: IPAddress) -> bytes:
    """The blob of an address."""
    return bytes((address.version,)) + address.packed


def decode(blob: object) -> IPAddress:
    """The address of a blob; raises NotAnAddress."""
    if not isinstance(blob, bytes):
        raise NotAnAddress(f"{blob!r} is not an address")
    if len(blob) == 5 and blob[0] == 4:
        return IPv4Address(blob[1:])
    if len(blob) == 17 and blob[0] == 6:
        return IPv6Address(blob[1:])
    raise NotAnAddress(f"{blob.hex()} is not an address")
