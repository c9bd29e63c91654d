"""The wire between shim and daemon; cni_plugin/shim/PROTOCOL.md is its description."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

VERSION = 2
STRINGS_MAX = 1 << 20
STDIN_MAX = (4 << 20) + 1
STDERR_MAX = 1 << 20

_REQUEST = struct.Struct("=4sIIII")
_FIRST_READ = 1 << 14  # bytes; few requests are larger
_FD = struct.Struct("i")
_TWO_FDS = socket.CMSG_LEN(2 * _FD.size)
_TOKEN_SIZE = 8  # eventfd(2)
# Plain numbers: an operator of the library's enumerations costs more than the system call.
_CLOEXEC, _DONTWAIT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_DONTWAIT)
_TRUNCATED = int(socket.MSG_CTRUNC)
_PROMPT_MS = 20
"""Milliseconds within which a request is expected to begin."""
_REPLY = struct.Struct("=4sIIII")


class ProtocolError(Exception):
    """What came is no request; the connection is closed without an answer."""


class WrongVersion(ProtocolError):
    """The request is of another protocol version."""

    def __init__(self, version: int) -> None:
        super().__init__(f"protocol version {version}, not {VERSION}")
        self.version = version


class NoRequest(ProtocolError):
    """The connection was closed before a byte came: a check whether a daemon listens."""


class TakenBack(ProtocolError):
    """The shim waited long enough, and has the call executed elsewhere."""


class Request(NamedTuple):
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
    connection: socket.socket, seconds: float, slow: Callable[[], None] = lambda: None
) -> Request:
    """Read one request, within some seconds however it trickles in; from then on it is ours.

    slow: called before more is waited for than a request that comes at once. Raises
    ProtocolError, TimeoutError, OSError, and closes the descriptors that came.
    """
    until = time.monotonic() + seconds
    data, control, flags, _address = _receive_first(connection, until, slow)
    descriptors = [fd for _, _, raw in control for (fd,) in _FD.iter_unpack(raw)]
    try:
        if flags & _TRUNCATED:
            raise ProtocolError("more descriptors than two, or no room for them")
        if not data:
            raise NoRequest
        data = _at_least(connection, data, _REQUEST.size, until, slow)
        strings, stdin, error = _check_head(data)
        body = _REQUEST.size + strings
        data = _at_least(connection, data, body + stdin, until, slow)
        texts = os.fsdecode(data[_REQUEST.size : body]).split("\0")
        request = _parse(texts, data[body : body + stdin], error)
        _claim(descriptors)
        os.close(descriptors.pop(0))
        return request._replace(netns=descriptors[0]) if descriptors else request
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise


def _receive_first(
    connection: socket.socket, until: float, slow: Callable[[], None]
) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
    """The request, or its beginning, as recvmsg(2) returns it.

    A descriptor comes with the first byte; those that come later are dropped by the kernel. A
    shim can pass no other control message, for the socket asks for none (unix(7)).
    """
    try:
        # The shim has usually sent it before we are here.
        return connection.recvmsg(_FIRST_READ, _TWO_FDS, _CLOEXEC | _DONTWAIT)
    except BlockingIOError:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not poll.poll(_PROMPT_MS):
            slow()
        _set_time(connection, until)
        return connection.recvmsg(_FIRST_READ, _TWO_FDS, _CLOEXEC)


def _set_time(connection: socket.socket, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("it was not sent in time")
    connection.settimeout(left)


def _check_head(head: bytes) -> tuple[int, int, int]:
    magic, version, strings, stdin, error = _REQUEST.unpack_from(head)
    if magic != b"PWRQ":
        raise ProtocolError("no podwire request")
    if version != VERSION:
        raise WrongVersion(version)
    if strings > STRINGS_MAX or stdin > STDIN_MAX:
        raise ProtocolError(f"request too large: {strings} and {stdin} bytes")
    return strings, stdin, error


def _at_least(
    connection: socket.socket, data: bytes, size: int, until: float, slow: Callable[[], None]
) -> bytes:
    """The first `size` bytes of the request. data: those that were received already."""
    if len(data) >= size:
        return data
    slow()
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


def _claim(descriptors: list[int]) -> None:
    """Begin the call, unless its shim has taken it back: who reads the token has it."""
    if not descriptors:
        raise ProtocolError("no token")
    os.set_blocking(descriptors[0], False)  # the shim's is so; any descriptor may come
    try:
        token = os.read(descriptors[0], _TOKEN_SIZE)
    except BlockingIOError as error:
        raise TakenBack from error
    if len(token) != _TOKEN_SIZE:
        raise ProtocolError("no token")


def _parse(texts: list[str], stdin: bytes, error: int) -> Request:
    if len(texts) < 3 or texts[-1]:
        raise ProtocolError("the strings of the request are cut off")
    program, executable, *variables, _end = texts
    env = {}
    # Of a variable that is there twice the first counts, as for getenv(3) in the shim.
    for variable in reversed(variables):
        name, _, value = variable.partition("=")
        if not name.startswith("CNI_"):
            raise ProtocolError("a variable that is not CNI_*")
        env[name] = value
    return Request(program, executable, env, stdin, -1, error)


def send_reply(
    connection: socket.socket,
    seconds: float,
    status: int,
    stdout: bytes,
    stderr: bytes = b"",
    slow: Callable[[], None] = lambda: None,
) -> None:
    """Send a reply, within some seconds; what is too long of stderr is cut off.

    slow: called before it is waited for a caller that does not read. Raises TimeoutError, OSError.
    """
    stderr = stderr[:STDERR_MAX]
    head = _REPLY.pack(b"PWRP", VERSION, status, len(stdout), len(stderr))
    data = head + stdout + stderr
    try:
        sent = connection.send(data, _DONTWAIT)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        slow()
        connection.settimeout(seconds)
        connection.sendall(memoryview(data)[sent:])
