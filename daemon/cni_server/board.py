"""A short text that one process writes and its forked ones read: shared memory without locks."""

from __future__ import annotations

import mmap
import struct
import time
import zlib

SIZE = 1 << 14
"""Bytes; of a longer text the beginning is kept."""
_HEAD = struct.Struct("=II")
_TRIES = 1000
_GAP = 0.001


class Board:
    """Made before the fork; one thread of one process writes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)

    def write(self, text: str) -> None:
        """Replace the text."""
        data = text.encode()[: SIZE - _HEAD.size].decode(errors="ignore").encode()
        self._memory[: _HEAD.size + len(data)] = _HEAD.pack(len(data), zlib.crc32(data)) + data

    def read(self) -> str:
        """The text, empty before the first; whole, however the writer is interrupted."""
        for _ in range(_TRIES):
            length, checksum = _HEAD.unpack_from(self._memory)
            data = self._memory[_HEAD.size : _HEAD.size + min(length, SIZE)]
            if zlib.crc32(data) == checksum:
                return data.decode(errors="replace")
            time.sleep(_GAP)  # it is being written
        return ""
