"""A netlink socket: batches with one send, dumps that survive interruption."""

from __future__ import annotations

import errno
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field

from kernel.errors import KernelError, TooManyObjects
from kernel.netlink.codec import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
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
POD_OBJECTS_MAX = 20_000
"""Objects of a kind that are read of a pod: it may have made any number of them."""
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_RECEIVE_BYTES = 1 << 17
_SO_RCVBUFFORCE = 33
# An answer counts as about 1,280 bytes, and the kernel doubles the size that is set (socket(7)).
_ANSWER_BYTES = 1 << 10
_TIMEOUT = 30  # seconds
_TIMEVAL = struct.Struct("@ll")
_TYPE = struct.Struct("=4xH")  # of a datagram's first message (struct nlmsghdr)
_DUMP_ATTEMPTS = 5
# struct nlmsgerr: the error and the request's header, without its body (NETLINK_CAP_ACK).
_ERROR_BYTES = 20


@dataclass(slots=True)
class Answer:
    """The kernel's answer to one request: errno (0 = done), its text, objects it returned."""

    errno: int = 0
    hint: str = ""
    objects: list[Message] = field(default_factory=list)


class Netlink(AbstractContextManager["Netlink"]):
    """One netlink socket in the namespace of the thread that opens it.

    It stays in that namespace whatever the thread enters afterwards (net/netlink/af_netlink.c
    takes the namespace at socket creation).
    """

    def __init__(self, protocol: int = NETLINK_ROUTE, *, dump_max: int = 0) -> None:
        """dump_max: objects above which a dump is given up, with TooManyObjects. 0: any number."""
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
        # Not settimeout: it would poll before each of many small reads.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_TIMEOUT, 0))
        self._socket.bind((0, 0))
        self._sequence, self._dump_max = 0, dump_max

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """A descriptor that is readable when something waits, of a socket with a subscription."""
        return self._socket.fileno()

    def receive_now(self, size: int) -> bytes:
        """A datagram that waits. Raises BlockingIOError where none does, OSError."""
        return self._socket.recv(size, socket.MSG_DONTWAIT)

    @property
    def port(self) -> int:
        """The socket's address: notifications name it as the author of a change."""
        return int(self._socket.getsockname()[0])

    def make_room(self, answers: int) -> None:
        """Let at least this number of answers wait in the kernel, all of them errors if need be.

        Root of another user namespace has at most net.core.rmem_max.
        """
        size = max(answers * _ANSWER_BYTES, _RECEIVE_BYTES)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def exchange(self, messages: Sequence[Message]) -> list[Answer]:
        """Send all messages at once and return the kernel's answer to each.

        The kernel works through them in order and goes on after one that fails. It answers in
        order too, and reports errors unasked: so only the last message asks for its answer.
        """
        answers = [Answer() for _ in messages]
        last = max((i for i, m in enumerate(messages) if m.ack), default=-1)
        base = self._send(messages, last)
        while last >= 0:
            for sequence, _port, message in unpack(self._receive()):
                number = sequence - base
                if not 0 <= number < len(answers):
                    continue
                if message.type != NLMSG_ERROR:
                    answers[number].objects.append(message)
                    continue
                answers[number].errno, answers[number].hint = _read_error(message)
                if number == last or not messages[number].ack:
                    # A transaction that is refused as a whole has no other answer.
                    last = -1
        return answers

    def _send(self, messages: Sequence[Message], last: int) -> int:
        """Send; the sequence number of the first one."""
        base = self._sequence + 1
        self._sequence += len(messages)
        packed = [pack(m, base + i, NLM_F_ACK if i == last else 0) for i, m in enumerate(messages)]
        self._socket.send(b"".join(packed))
        return base

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError as error:
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
                    str(message) or "do netlink request", "", answer.errno, answer.hint
                )
        return answers

    def dump(self, message: Message) -> list[Message]:
        """All objects of a kind; repeated when the kernel reports a change meanwhile."""
        for _ in range(_DUMP_ATTEMPTS):
            objects, consistent = self._dump_once(message)
            if consistent:
                return objects
        return objects

    def search(self, message: Message, wanted: re.Pattern[bytes]) -> Iterator[Message]:
        """Objects of a dump, at least those whose bytes match; for dumps too long to be kept.

        Datagrams without a match are passed over. A change meanwhile is no reason to repeat it.
        """
        mine = self._send([Message(message.type, message.flags | NLM_F_DUMP, message.body)], -1)
        while True:
            data = self._receive()
            kind = _TYPE.unpack_from(data)[0]
            # What ends a dump comes by itself (net/netlink/af_netlink.c, netlink_dump), unless the
            # kernel has no such objects at all.
            if kind not in (NLMSG_DONE, NLMSG_ERROR) and not wanted.search(data):
                continue
            for sequence, _port, part in unpack(data):
                if sequence == mine and part.type in (NLMSG_DONE, NLMSG_ERROR):
                    _raise_dump_error(message, part)
                    return
                if sequence == mine:
                    yield part

    def _dump_once(self, message: Message) -> tuple[list[Message], bool]:
        mine = self._send([Message(message.type, message.flags | NLM_F_DUMP, message.body)], -1)
        objects: list[Message] = []
        consistent = True
        while True:
            for sequence, _port, part in unpack(self._receive()):
                if sequence != mine:
                    continue
                consistent = consistent and not part.flags & NLM_F_DUMP_INTR
                if part.type in (NLMSG_DONE, NLMSG_ERROR):
                    _raise_dump_error(message, part)
                    return objects, consistent
                objects.append(part)
            if 0 < self._dump_max < len(objects):
                hint = f"there are more than {self._dump_max}"
                raise TooManyObjects(str(message), "", 0, hint)


def open_netlink(protocol: int = NETLINK_ROUTE) -> AbstractContextManager[Netlink]:
    """A socket in the calling thread's namespace: the kept one, or one for this block alone."""
    kept: dict[int, Netlink] = getattr(_thread, "sockets", {})
    return nullcontext(kept[protocol]) if protocol in kept else Netlink(protocol)


def keep_sockets_open() -> None:
    """Let the calling thread, which stays in this namespace, use the same sockets from now on.

    Closing an nftables socket soon after a commit waits for an RCU grace period
    (net/netfilter/nf_tables_api.c, nft_rcv_nl_event).
    """
    sockets: dict[int, Netlink] = {}
    for protocol in (NETLINK_ROUTE, NETLINK_NETFILTER):
        with suppress(KernelError):  # the call that needs it reports what is missing
            sockets[protocol] = Netlink(protocol)
    _thread.sockets = sockets


def close_kept_sockets() -> None:
    """End what `keep_sockets_open` began, before the thread ends."""
    for kept in getattr(_thread, "sockets", {}).values():
        kept.close()
    _thread.sockets = {}


_thread = threading.local()


def _read_error(message: Message) -> tuple[int, str]:
    code = -struct.unpack_from("=i", message.body)[0]
    if not message.flags & NLM_F_ACK_TLVS:
        return code, ""
    hint = attributes(message.body, _ERROR_BYTES).get(NLMSGERR_ATTR_MSG, b"")
    return code, string(hint)


def _raise_dump_error(message: Message, part: Message) -> None:
    code = -struct.unpack_from("=i", part.body)[0] if len(part.body) >= 4 else 0
    if code not in (0, errno.ENODEV):
        raise KernelError(str(message) or "list kernel objects", "", code)
