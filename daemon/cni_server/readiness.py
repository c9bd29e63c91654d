"""The answer to STATUS for the network whose routes this daemon keeps (SPEC 1.1.0, "STATUS")."""

from __future__ import annotations

import json
import mmap
import struct
import time
import zlib

from cni_plugin.errors import NOT_AVAILABLE, CniError
from daemon.status import NodeStatus

SIZE = 1 << 14
"""Bytes of the shared memory."""
_HEAD = struct.Struct("=II")  # length and checksum of the text
_TRIES, _PAUSE_SECONDS = 1000, 0.001
_FAULT_MAX = 1000  # characters, in JSON at most twelve bytes each: a text that fits
_SEE = "see `podwirectl status` on this node"


class Readiness:
    """The newest status, written by one thread of one process and read by all of its forked ones.

    network: the name in the CNI configuration that the daemon writes, which each process sets;
    other networks' pods need no routes to other nodes. needs_routes: false where the daemon makes
    none, for nobody's pods.
    """

    def __init__(self, network: str = "") -> None:
        self.network = network
        self.needs_routes = True
        self._memory = mmap.mmap(-1, SIZE)
        self._written = b""

    def publish(self, status: NodeStatus) -> None:
        """Take a new status."""
        text = json.dumps(_judge(status)).encode()
        if text != self._written:
            self._memory[: _HEAD.size + len(text)] = _HEAD.pack(len(text), zlib.crc32(text)) + text
            self._written = text

    def fault(self, network: str) -> CniError | None:
        """Code 50 while the node is not ready; else None.

        Entries that are missing for some peers do not count: STATUS must succeed where an ADD does.
        Of a node whose STATUS fails Kubernetes evicts the pods, which reach all others.
        """
        if network != self.network:
            return None
        text = self._read()
        if not text:
            return CniError(NOT_AVAILABLE, "podwired has just started to make routes", _SEE)
        found = json.loads(text)
        return CniError(NOT_AVAILABLE, found, _SEE) if found else None

    @property
    def unready(self) -> str:
        """Why pods that need routes cannot be attached; empty where they can, or none needs any."""
        if not self.needs_routes:
            return ""
        fault = self.fault(self.network)
        return fault.msg if fault else ""

    def _read(self) -> bytes:
        """The text, empty before the first; whole, however the writer is interrupted."""
        for _ in range(_TRIES):
            length, checksum = _HEAD.unpack_from(self._memory)
            text = self._memory[_HEAD.size : _HEAD.size + length]
            if zlib.crc32(text) == checksum:
                return text
            time.sleep(_PAUSE_SECONDS)  # it is being written
        return b""


def _judge(status: NodeStatus) -> str:
    return f"this node is not ready: {status.fault[:_FAULT_MAX]}" if status.fault else ""
