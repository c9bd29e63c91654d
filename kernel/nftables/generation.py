"""Generations of the node's rules: whether podwire's parts are what they were when last compared.

Each transaction on any table makes another generation (net/netfilter/nf_tables_api.c, base_seq).
While nobody but podwire changes elements, an ADD need not read rules and intervals again.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence

from kernel.errors import KernelError
from kernel.netlink.codec import NLM_F_EXCL, Message, attributes
from kernel.netlink.socket import Answer, Netlink
from kernel.nftables.table import HEADER_BYTES, SUBSYSTEM, commit, header

# linux/netfilter/nf_tables.h
_GETGEN, _GEN_ID = SUBSYSTEM | 16, 1
_PARTS, _INTERVALS = 0, 1
_WORD_BYTES = 8
_LAST = 0xFFFFFFFF
_NOT_SO = frozenset({errno.ERESTART, errno.EEXIST})


class _Known:
    """What is known in this process's namespace, each fact with the generation in which it is so.

    _PARTS: the parts that are whole, as bits. _INTERVALS: a digest of the elements that are ranges.
    """

    def __init__(self) -> None:
        self._words = memoryview(bytearray(2 * _WORD_BYTES)).cast("Q")
        self._space = 0

    def share(self) -> None:
        """Share it with processes that are forked from now on, all in one namespace.

        A fact is written in one piece with its generation, and whoever reads an older generation
        than the kernel's compares again.
        """
        self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    def read(self, fact: int) -> tuple[int, int]:
        """The generation, and what was so in it; nothing in another network namespace."""
        return divmod(self._words[fact], _LAST + 1) if self._is_here() else (0, 0)

    def write(self, fact: int, generation: int, value: int) -> None:
        """Replace both. value: of 32 bits."""
        if self._is_here():
            self._words[fact] = generation * (_LAST + 1) + value

    def _is_here(self) -> bool:
        # Each namespace counts for itself; a process works in one, but for tests.
        inode = os.stat("/proc/thread-self/ns/net").st_ino
        self._space = self._space or inode
        return inode == self._space


_known = _Known()


def share_with_forked() -> None:
    """Let processes that are forked from now on know what one of them has compared."""
    _known.share()


def read_generation(nl: Netlink) -> int:
    """The generation of this namespace's rules. Raises KernelError."""
    answer = nl.run([Message(_GETGEN, 0, header(""), "read nft generation")])[0]
    found = attributes(answer.objects[0].body, HEADER_BYTES) if answer.objects else {}
    return int.from_bytes(found.get(_GEN_ID, b""))


def are_whole(generation: int, parts: int) -> bool:
    """Whether these parts, as bits, are known to be whole in this generation."""
    known, bits = _known.read(_PARTS)
    return generation == known != 0 and not parts & ~bits


def note_whole(generation: int, parts: int) -> None:
    """Note that these parts were whole; read the generation before the rules."""
    known, bits = _known.read(_PARTS)
    _known.write(_PARTS, generation, parts | (bits if known == generation else 0))


def are_intervals(generation: int, digest: int) -> bool:
    """Whether the elements that are ranges are known to have this digest in this generation."""
    return generation != 0 and _known.read(_INTERVALS) == (generation, digest)


def note_intervals(generation: int, digest: int) -> None:
    """Note their digest, of 32 bits; read the generation before the elements."""
    _known.write(_INTERVALS, generation, digest)


def commit_elements(
    nl: Netlink, messages: Sequence[Message], *, intervals: bool = False
) -> list[Answer]:
    """Commit changes of elements alone; what is known of the rules stays so. Raises KernelError.

    intervals: whether elements that are ranges are among them.
    """
    known, bits = _known.read(_PARTS)
    if not known:
        return commit(nl, messages)
    try:
        # Refused in any other generation, so nobody's change lies between; and where nothing would
        # change, for that makes no generation.
        exclusive = [m._replace(flags=m.flags | NLM_F_EXCL) if m.flags else m for m in messages]
        answers = commit(nl, exclusive, generation=known)
    except KernelError as error:
        if error.errno not in _NOT_SO:
            raise
        return commit(nl, messages)
    following = 1 if known == _LAST else known + 1
    seen, digest = _known.read(_INTERVALS)
    if seen == known and not intervals:
        _known.write(_INTERVALS, following, digest)
    _known.write(_PARTS, following, bits)
    return answers
