"""The registers of an nftables rule, of which some bytes may be unknown, and what works on them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from kernel.netlink.codec import attributes
from kernel.nftables.flow import Match

_VALUE = 1
_EQUAL, _UNEQUAL = 0, 1  # linux/netfilter/nf_tables.h, NFT_CMP_*
_Attributes = Mapping[int, bytes]


class Registers:
    """What a rule has loaded, byte by byte; one that is not there is unknown."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}

    def store(self, register: bytes, value: Sequence[int | None] | None) -> None:
        """Load a value, the last word of it padded; None: what it is is unknown."""
        first = _place(register)
        padding = [None] * 4 if value is None else [0] * (-len(value) % 4)
        for at, byte in enumerate([*(value or ()), *padding], first):
            if byte is None:
                self._bytes.pop(at, None)
            else:
                self._bytes[at] = byte

    def read(self, register: bytes, length: int) -> bytes | None:
        """Bytes from the register's first on; None where any of them is unknown."""
        known = [byte for byte in self.read_each(register, length) if byte is not None]
        return bytes(known) if len(known) == length else None

    def read_each(self, register: bytes, length: int) -> list[int | None]:
        """Bytes from the register's first on, None for each that is unknown."""
        first = _place(register)
        return [self._bytes.get(at) for at in range(first, first + length)]

    def forget(self) -> None:
        """After an expression that may have loaded anything."""
        self._bytes.clear()


def _place(register: bytes) -> int:
    """Where a register begins: NFT_REG_1 to 4 are four words each."""
    number = int.from_bytes(register)
    return 4 * ((number - 1) * 4 if number <= 4 else number - 8)


def mask(registers: Registers, data: _Attributes) -> list[int | None] | None:
    """The value of a `bitwise`; a byte that the mask clears is known whatever it was."""
    if 4 not in data or 5 not in data:
        return None
    kept, flipped = (attributes(data[n])[_VALUE] for n in (4, 5))
    value = registers.read_each(data[1], len(kept))
    return [
        x if m == 0 else None if v is None else v & m ^ x
        for v, m, x in zip(value, kept, flipped, strict=True)
    ]


def swap(registers: Registers, data: _Attributes) -> bytes | None:
    """The value of a `byteorder`: a number in network order.

    One that is shorter than the unit stays as it is (net/netfilter/nft_byteorder.c): so nft asks
    for a protocol in a key of several fields.
    """
    length, size = (int.from_bytes(data[n]) for n in (4, 5))
    if length > size or data[1] != data[2]:
        return None
    value = registers.read(data[1], length)
    return value[::-1] if value and length == size and sys.byteorder == "little" else value


def compare(registers: Registers, data: _Attributes) -> Match:
    """Whether a `cmp` matches. One byte that differs makes a value unequal, whatever others are."""
    operation, wanted = int.from_bytes(data[2]), attributes(data[3])[_VALUE]
    each = registers.read_each(data[1], len(wanted))
    if operation in (_EQUAL, _UNEQUAL) and any(
        byte not in (None, other) for byte, other in zip(each, wanted, strict=True)
    ):
        return "yes" if operation == _UNEQUAL else "no"
    found = registers.read(data[1], len(wanted))
    if found is None:
        return "maybe"
    results = (found == wanted, found != wanted, found < wanted, found <= wanted, found > wanted)
    fits = results[operation] if operation < len(results) else found >= wanted
    return "yes" if fits else "no"
