"""The wire between shim and daemon; cni_plugin/shim/PROTOCOL.md is its description."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

VERSION = 1
STRINGS_MAX = 1 << 20
STDIN_MAX = (4 << 20) + 1
STDOUT_MAX, STDERR_MAX = 16 << 20, 1 << 20

_REQUEST = struct.Struct("=4sIIII")
_FIRST_READ = 1 << 16  # bytes
_REPLY = struct.Struct("=4sIIII")


class ProtocolError(Exception):
    """What came is no request; the connection is closed without an answer."""


class WrongVersion(ProtocolError):
    """The request is of another protocol version."""

    def __init__(self, version: int) -> None:
        super().__init__(f"protocol version {version}, not {VERSION}")
        self.version = version


class NothingSaid(ProtocolError):
    """It was closed before a byte came: somebody looked whether a daemon answers."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call as the shim sent it. netns: a descriptor to close, -1 for none.

    netns_errno: why the shim could not open CNI_NETNS, 0 where it could or had none to open.
    """

    program: str
    executable: str
    env: Mapping[str, str]
    stdin: bytes
    netns: int
    netns_errno: int


def receive(
    connection: socket.socket, seconds: float, wait: Callable[[], None] = lambda: None
) -> Request:
    """Read one request, in so many seconds however it trickles in.

    wait: called before more is waited for than a request that comes at once. Raises
    ProtocolError, TimeoutError, OSError; closes what it was given.
    """
    until = time.monotonic() + seconds
    _set_time(connection, until)
    # Most requests come whole at the first read. Descriptors come with the first byte; what comes
    # later is dropped by the kernel.
    data, descriptors, flags, _address = socket.recv_fds(
        connection, _FIRST_READ, 1, socket.MSG_CMSG_CLOEXEC
    )
    try:
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("more descriptors than one, or no room for it")
        data = _at_least(connection, data, _REQUEST.size, until, wait) if data else b""
        strings, stdin, error = _check_head(data)
        data = _at_least(connection, data, _REQUEST.size + strings + stdin, until, wait)
        body = _REQUEST.size + strings
        words = data[_REQUEST.size : body].split(b"\0")
        netns = descriptors[0] if descriptors else -1
        return _parse(words, data[body : body + stdin], netns, error)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise


def _set_time(connection: socket.socket, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("it was not sent in time")
    connection.settimeout(left)


def _check_head(head: bytes) -> tuple[int, int, int]:
    if not head:
        raise NothingSaid
    magic, version, strings, stdin, error = _REQUEST.unpack_from(head)
    if magic != b"PWRQ":
        raise ProtocolError("no podwire request")
    if version != VERSION:
        raise WrongVersion(version)
    if strings > STRINGS_MAX or stdin > STDIN_MAX:
        raise ProtocolError(f"request too large: {strings} and {stdin} bytes")
    return strings, stdin, error


def _at_least(
    connection: socket.socket, data: bytes, size: int, until: float, wait: Callable[[], None]
) -> bytes:
    """So many bytes of the request, of which these are there already."""
    if len(data) >= size:
        return data
    wait()
    buffer = bytearray(size)
    buffer[: len(data)] = data
    view = memoryview(buffer)[len(data) :]
    while view:
        _set_time(connection, until)
        count = connection.recv_into(view)
        if not count:
            raise ProtocolError("closed in the middle of a request")
        view = view[count:]
    return bytes(buffer)


def _parse(words: list[bytes], stdin: bytes, netns: int, error: int) -> Request:
    if len(words) < 3 or words[-1]:
        raise ProtocolError("the strings of the request are cut off")
    program, executable, *variables = [os.fsdecode(word) for word in words[:-1]]
    # Of a variable that is there twice the first counts, as for getenv(3) in the shim.
    env = dict(variable.partition("=")[::2] for variable in reversed(variables))
    if not all(name.startswith("CNI_") for name in env):
        raise ProtocolError("a variable that is not CNI_*")
    return Request(program, executable, env, stdin, netns, error)


def send_reply(connection: socket.socket, status: int, stdout: bytes, stderr: bytes = b"") -> None:
    """Send a reply; what is too long of stderr is cut off."""
    stderr = stderr[:STDERR_MAX]
    head = _REPLY.pack(b"PWRP", VERSION, status, len(stdout), len(stderr))
    connection.sendall(head + stdout + stderr)
