"""The answer to STATUS for the network whose routes this daemon keeps (SPEC 1.1.0, "STATUS")."""

from __future__ import annotations

import json
import mmap
import struct
import time
import zlib

from cni_plugin.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
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
        """Code 50 while the node is not ready, 51 while some peers are not reached; else None.

        A prefix that is refused counts for neither: it is the cluster's mistake, and what this
        node's pods can reach will not change by waiting.
        """
        if network != self.network:
            return None
        text = self._read()
        if not text:
            return CniError(NOT_AVAILABLE, "podwired has just started to make routes", _SEE)
        found = json.loads(text)
        return CniError(found[0], found[1], _SEE) if found else None

    @property
    def unready(self) -> str:
        """Why pods that need routes cannot be attached; empty where they can, or none needs any."""
        if not self.needs_routes:
            return ""
        fault = self.fault(self.network)
        return fault.msg if fault and fault.code == NOT_AVAILABLE else ""

    def _read(self) -> bytes:
        """The text, empty before the first; whole, however the writer is interrupted."""
        for _ in range(_TRIES):
            length, checksum = _HEAD.unpack_from(self._memory)
            text = self._memory[_HEAD.size : _HEAD.size + length]
            if zlib.crc32(text) == checksum:
                return text
            time.sleep(_PAUSE_SECONDS)  # it is being written
        return b""


def _judge(status: NodeStatus) -> tuple[int, str] | None:
    if status.fault:
        return NOT_AVAILABLE, f"this node is not ready: {status.fault[:_FAULT_MAX]}"
    missing = status.wanted - status.in_sync
    if missing:
        msg = f"{missing} of {status.wanted} entries for other nodes' pods are missing"
        return LIMITED_CONNECTIVITY, msg
    return None
