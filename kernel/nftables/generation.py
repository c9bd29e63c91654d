"""Generations of the node's rules: whether podwire's parts are what they were when last compared.

Each transaction on any table makes another generation (net/netfilter/nf_tables_api.c, base_seq).
While nobody but podwire changes elements, an ADD need not read the rules again.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Sequence

from kernel.errors import KernelError
from kernel.netlink.codec import NLM_F_EXCL, Message, attributes
from kernel.netlink.socket import Answer, Netlink
from kernel.nftables.table import HEADER_BYTES, SUBSYSTEM, commit, header

# linux/netfilter/nf_tables.h
_GETGEN, _GEN_ID = SUBSYSTEM | 16, 1
_STATE = struct.Struct("=IBxxx")
_LAST = 0xFFFFFFFF
_NOT_SO = frozenset({errno.ERESTART, errno.EEXIST})


class _Whole:
    """The generation in which these parts were whole, in this process's namespace."""

    def __init__(self) -> None:
        self._page: bytearray | mmap.mmap = bytearray(_STATE.size)
        self._space = 0

    def share(self) -> None:
        """Share it with processes that are forked from now on, all in one namespace.

        It is written in one piece, and whoever reads an older state than the kernel's compares
        again.
        """
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def read(self) -> tuple[int, int]:
        """The generation, and the parts as bits; nothing in another network namespace."""
        generation, parts = _STATE.unpack_from(self._page)
        return (generation, parts) if self._is_here() else (0, 0)

    def write(self, generation: int, parts: int) -> None:
        """Replace both."""
        if self._is_here():
            _STATE.pack_into(self._page, 0, generation, parts)

    def _is_here(self) -> bool:
        # Each namespace counts for itself; a process works in one, but for tests.
        inode = os.stat("/proc/thread-self/ns/net").st_ino
        self._space = self._space or inode
        return inode == self._space


_whole = _Whole()


def share_with_forked() -> None:
    """Let processes that are forked from now on know what one of them has compared."""
    _whole.share()


def read_generation(nl: Netlink) -> int:
    """The generation of this namespace's rules. Raises KernelError."""
    answer = nl.run([Message(_GETGEN, 0, header(""), "read nft generation")])[0]
    found = attributes(answer.objects[0].body, HEADER_BYTES) if answer.objects else {}
    return int.from_bytes(found.get(_GEN_ID, b""))


def are_whole(generation: int, parts: int) -> bool:
    """Whether these parts, as bits, are known to be whole in this generation."""
    known, bits = _whole.read()
    return generation == known != 0 and not parts & ~bits


def note_whole(generation: int, parts: int) -> None:
    """Note that these parts were whole; read the generation before the rules."""
    known, bits = _whole.read()
    _whole.write(generation, parts | (bits if known == generation else 0))


def commit_elements(nl: Netlink, messages: Sequence[Message]) -> list[Answer]:
    """Commit changes of elements alone; what is known of the rules stays so. Raises KernelError."""
    known, bits = _whole.read()
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
    _whole.write(1 if known == _LAST else known + 1, bits)
    return answers
