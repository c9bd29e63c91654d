"""Raw requests to a daemon's socket."""

import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.netns.daemon.conftest import SECONDS
from tests.unit.shim.conftest import PROTOCOL

HEAD = struct.Struct("=4sIIII")


def head(strings: int, stdin: int, *, magic: bytes = b"PWRQ", version: int = PROTOCOL) -> bytes:
    """The head of a request."""
    return HEAD.pack(magic, version, strings, stdin, 0)


def request(stdin: bytes = b"", program: str = "podwire", **env: str) -> bytes:
    """A whole request; the variables without their CNI_."""
    variables = (f"CNI_{name}={value}" for name, value in env.items())
    strings = "".join(f"{word}\0" for word in (program, "/usr/bin/podwire", *variables)).encode()
    return head(len(strings), len(stdin)) + strings + stdin


VERSION = request(COMMAND="VERSION")


@contextmanager
def _token(fresh: bool) -> Iterator[list[int]]:
    """A token of a call that is to be begun, if there is to be one."""
    tokens = [os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)] if fresh else []
    try:
        yield tokens
    finally:
        for token in tokens:
            os.close(token)


class Link:
    """A connection to the daemon."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self._fresh = True
        self.socket.connect(str(path))

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes, descriptors: Sequence[int] = (), *, token: bool = True) -> None:
        """Send all of it, or as much as the daemon takes before it closes.

        descriptors: go with the first byte; token: as the shim's, before them, the first time.
        """
        fresh, self._fresh = self._fresh and token, False
        try:
            with _token(fresh) as tokens:
                if tokens or descriptors:
                    sent = socket.send_fds(self.socket, [data], [*tokens, *descriptors])
                    data = data[sent:]
            self.socket.sendall(data)
        except ConnectionError:
            pass

    def answer(self) -> bytes:
        """All that the daemon sends before it closes."""
        data = b""
        try:
            while part := self.socket.recv(1 << 16):
                data += part
        except ConnectionError:  # it closed with some of ours unread
            pass
        return data


def exchange(
    path: Path, data: bytes, descriptors: Sequence[int] = (), *, token: bool = True
) -> bytes:
    """What the daemon answers to these bytes, after which nothing comes."""
    with Link(path) as link:
        link.send(data, descriptors, token=token)
        with suppress(OSError):  # it has closed already
            link.socket.shutdown(socket.SHUT_WR)
        return link.answer()


def reply(data: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the object of a reply; AssertionError where it is none."""
    magic, version, status, out, err = HEAD.unpack_from(data)
    assert (magic, version) == (b"PWRP", PROTOCOL)
    assert len(data) == HEAD.size + out + err
    return status, json.loads(data[HEAD.size : HEAD.size + out] or b"{}")
