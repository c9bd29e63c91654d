"""A DNS server for tests: some names, and how many queries it has had."""

import socket
import struct
import threading
from contextlib import suppress
from ipaddress import ip_address

from tests.pytest_netns import Namespace

A, AAAA = 1, 28


class DnsServer:
    """Answers on UDP port 53. names: address by name; others are NXDOMAIN.

    budget: answers that it gives at most, None for all. asked: the names, as they came.
    """

    def __init__(self, ns: Namespace, address: str, names: dict[str, str]) -> None:
        self.address, self._names = address, names
        self.asked: list[tuple[str, int]] = []
        self.budget: int | None = None
        self._socket = ns.call(self._open)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind((self.address, 53))
        return sock

    def close(self) -> None:
        """Stop serving."""
        with suppress(OSError):  # it wakes the reader, yet says "not connected"
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(2048)
            except OSError:
                return
            if not data:
                return
            try:
                answer = self._answer(data)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue
            if self.budget is None or self.budget > 0:
                self.budget = None if self.budget is None else self.budget - 1
                self._socket.sendto(answer, peer)

    def _answer(self, query: bytes) -> bytes:
        labels, offset = [], 12
        while query[offset]:
            labels.append(query[offset + 1 : offset + 1 + query[offset]].decode())
            offset += 1 + query[offset]
        (kind,) = struct.unpack_from("!H", query, offset + 1)
        name = ".".join(labels)
        self.asked.append((name, kind))
        known = self._names.get(name.lower())
        packed = ip_address(known).packed if known else b""
        fits = known is not None and {A: 4, AAAA: 16}.get(kind) == len(packed)
        flags = 0x8180 | (0 if known else 3)
        head = query[:2] + struct.pack("!5H", flags, 1, fits, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(packed)) + packed
        return head + query[12 : offset + 5] + (record if fits else b"")
