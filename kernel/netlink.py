"""A netlink socket: batches with one send, dumps that survive interruption."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from kernel.errors import KernelError
from kernel.wire import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    Message,
    attributes,
    pack,
    string,
    unpack,
)

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_RECEIVE_BYTES = 1 << 17
_TIMEOUT_SECONDS = 30.0
_DUMP_ATTEMPTS = 5


@dataclass(slots=True)
class Answer:
    """What the kernel said to one request: errno (0 = done), its words, objects it returned."""

    errno: int = 0
    hint: str = ""
    objects: list[Message] = field(default_factory=list)


class Netlink:
    """One netlink socket in the namespace of the thread that opens it.

    It stays in that namespace whatever the thread enters afterwards (net/netlink/af_netlink.c
    takes the namespace at socket creation).
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        except OSError as error:
            name = {NETLINK_NETFILTER: "nftables"}.get(protocol, "rtnetlink")
            raise KernelError("use the kernel's", name, error.errno or 0) from error
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        # Dumps obey what their request names (a link, a table) instead of listing everything.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address, by which the kernel tells whose change an event is of."""
        return int(self._socket.getsockname()[0])

    def exchange(self, messages: Sequence[Message]) -> list[Answer]:
        """Send all messages at once and return the kernel's answer to each.

        The kernel works through them in order and goes on after one that fails.
        """
        answers = [Answer() for _ in messages]
        base = self._sequence + 1
        self._sequence += len(messages)
        self._send(Message(m.type, m.flags | (NLM_F_ACK if m.ack else 0), m.body) for m in messages)
        waiting = sum(m.ack for m in messages)
        while waiting:
            for sequence, message in unpack(self._receive()):
                if not 0 <= sequence - base < len(answers):
                    continue
                answer = answers[sequence - base]
                if message.type == NLMSG_ERROR:
                    answer.errno, answer.hint = _read_error(message)
                    waiting -= messages[sequence - base].ack
                else:
                    answer.objects.append(message)
        return answers

    def _send(self, messages: Iterable[Message]) -> None:
        packed = list(messages)
        first = self._sequence - len(packed) + 1
        self._socket.send(b"".join(pack(m, first + i) for i, m in enumerate(packed)))

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError as error:
            raise KernelError("get an answer from", "netlink", errno.ETIMEDOUT) from error

    def run(
        self, messages: Sequence[Message], tolerate: frozenset[int] = frozenset()
    ) -> list[Answer]:
        """Exchange, and raise KernelError for the first answer that is an error.

        tolerate: errno values that count as done.
        """
        answers = self.exchange(messages) if messages else []
        for message, answer in zip(messages, answers, strict=True):
            if answer.errno and answer.errno not in tolerate:
                raise KernelError(
                    message.what or "do netlink request", "", answer.errno, answer.hint
                )
        return answers

    def dump(self, message: Message) -> list[Message]:
        """All objects of a kind; repeated when the kernel says the list changed underneath."""
        for _ in range(_DUMP_ATTEMPTS):
            objects, consistent = self._dump_once(message)
            if consistent:
                return objects
        return objects

    def _dump_once(self, message: Message) -> tuple[list[Message], bool]:
        self._sequence += 1
        request = Message(message.type, message.flags | NLM_F_DUMP, message.body)
        self._send([request])
        objects: list[Message] = []
        consistent = True
        while True:
            for sequence, part in unpack(self._receive()):
                if sequence != self._sequence:
                    continue
                consistent = consistent and not part.flags & NLM_F_DUMP_INTR
                if part.type in (NLMSG_DONE, NLMSG_ERROR):
                    _raise_dump_error(message, part)
                    return objects, consistent
                objects.append(part)


def _read_error(message: Message) -> tuple[int, str]:
    code = -struct.unpack_from("=i", message.body)[0]
    if not message.flags & NLM_F_ACK_TLVS:
        return code, ""
    # struct nlmsgerr: error, then the request's header (its body too, unless capped).
    skip = 20 if message.flags & NLM_F_CAPPED else 4 + _request_length(message.body)
    hint = attributes(message.body, skip).get(NLMSGERR_ATTR_MSG, b"")
    return code, string(hint)


def _request_length(body: bytes) -> int:
    length = int(struct.unpack_from("=I", body, 4)[0])
    return length + (-length % 4)


def _raise_dump_error(message: Message, part: Message) -> None:
    code = -struct.unpack_from("=i", part.body)[0] if len(part.body) >= 4 else 0
    if code not in (0, errno.ENODEV):
        raise KernelError(message.what or "list kernel objects", "", code)
