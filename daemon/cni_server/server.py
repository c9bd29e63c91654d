"""The socket server: workers take connections, and every call goes through `cni_plugin.handle`.

One call at a time per attachment. What makes calls exclude each other beyond that is the store
and the kernel, never the daemon's memory: the standalone path may run beside it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cni_plugin.errors import INTERNAL, TRY_AGAIN, CniError
from cni_plugin.handle import Reply, handle, refuse
from cni_plugin.host import Host
from daemon.cni_server import protocol
from daemon.cni_server.attachment_locks import KeyedLocks
from daemon.cni_server.call_counters import Meter
from daemon.cni_server.listener import Listener
from daemon.cni_server.worker_pool import Turns
from daemon.log import Log, identity
from kernel.errors import NotANamespace
from kernel.netlink.socket import close_kept_sockets, keep_sockets_open
from kernel.netns import Namespace, close_kept_home, keep_home_open

REQUEST_SECONDS = REPLY_SECONDS = 10.0
_LAST_WORDS = 5.0
"""Seconds that a call has to answer when the plugin that it waits for was killed."""
_PROMPT = 20
"""Milliseconds that a request may take to begin; a slow one takes nobody's turn."""
_PEER = struct.Struct("=iII")


class Server:
    """Serves one listening socket until `stop`."""

    def __init__(
        self,
        listener: Listener,
        host: Host,
        turns: Turns,
        locks: KeyedLocks,
        meter: Meter,
        log: Log,
    ) -> None:
        self._listener = listener
        self._host = host
        self._gate, self._shifts, self._plugins = turns.gate, turns.shifts, turns.plugins
        self._locks, self._meter = locks, meter
        self._log = log
        self._workers: list[threading.Thread] = []
        self._shifts.open(self._add_worker)

    def relieve(self) -> None:
        """To be called now and then: stuck calls must not keep out others for good."""
        self._shifts.relieve()

    def stop(self, seconds: float) -> bool:
        """Take no further call and finish those under way; whether all ended in time.

        A call that waits for another plugin towards the end of it is told that this was killed.
        """
        self._listener.stop()
        self._shifts.stop()
        until = time.monotonic() + seconds
        if not self._join(until - _LAST_WORDS):
            self._plugins.stop()
        return self._join(until)

    def _join(self, until: float) -> bool:
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def _add_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._workers = [w for w in self._workers if w.is_alive()]
        worker.start()
        self._workers.append(worker)

    def _work(self) -> None:
        keep_sockets_open()
        keep_home_open()
        try:
            self._take_calls()
        finally:
            close_kept_home()
            close_kept_sockets()

    def _take_calls(self) -> None:
        with self._listener.waiting() as door:
            while self._shifts.begin():
                self._listener.wait(door)
                connection = self._listener.accept(self._log)
                if connection is None:
                    self._shifts.missed()
                    continue
                self._shifts.accepted()
                with connection:
                    self._serve(connection)
        for connection in self._listener.drain(self._log):
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        """Serve one connection. Never raises: a worker that ended would be missing for good."""
        try:
            request = self._receive(connection)
            if request is not None:
                self._call(connection, request)
        except Exception as error:
            self._log.error(f"internal error {type(error).__name__}: {error}")
            self._answer(connection, _internal(error), [])

    def _receive(self, connection: socket.socket) -> protocol.Request | None:
        """The request; None where there is none to serve, which has been dealt with."""
        uid = _peer_uid(connection)
        if uid != 0:
            self._log.warning(f"refused a caller with uid {uid}")
            return None
        if not _is_readable(connection):
            self._shifts.leave()
        try:
            return protocol.receive(connection, REQUEST_SECONDS, self._shifts.leave)
        except protocol.NothingSaid:
            return None
        except protocol.WrongVersion as error:
            self._answer(connection, _wrong_version(error), [])
        except (protocol.ProtocolError, OSError, ValueError) as error:
            self._log.warning(f"a request could not be read: {error}")
        return None

    def _call(self, connection: socket.socket, request: protocol.Request) -> None:
        netns, lines = Descriptor(request), list[str]()
        reply, verb = None, request.env.get("CNI_COMMAND", "")
        began = handled = self._meter.begin(verb)
        try:
            host = replace(
                self._host,
                program=request.program,
                executable=Path(request.executable),
                open_netns=netns.open,
                log=lines.append,
                began=began,
            )
            with self._locks.holding(_key(request.env)):
                reply, seconds = self._handle(connection, request, host)
            handled = time.monotonic()
            if reply is not None:  # first of all: the caller need not wait for what we note
                self._answer(connection, reply, lines)
                self._log.call(request.env, reply, seconds, lines)
        finally:
            self._meter.end(verb, handled - began, reply)
            netns.close()

    def _handle(
        self, connection: socket.socket, request: protocol.Request, host: Host
    ) -> tuple[Reply | None, float]:
        """The reply and its seconds; no reply where the caller died while its call waited.

        The runtime may have sent DEL since, on another connection: an ADD made now would stay.
        """
        if _is_gone(connection):
            who = identity(request.env)
            self._log.warning("a caller went away before its turn; nothing was done", **who)
            return None, 0.0
        begin = time.monotonic()
        with self._gate.inside():
            reply = handle(request.env, request.stdin, host)
        return reply, time.monotonic() - begin

    def _answer(self, connection: socket.socket, reply: Reply, lines: list[str]) -> None:
        # As Python's own stderr writes what is no text.
        stderr = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
        connection.settimeout(REPLY_SECONDS)
        try:
            protocol.send_reply(connection, reply.status, reply.stdout, stderr)
        except OSError as error:
            # The runtime gave up on this call: it will send DEL, which finds the record.
            self._log.warning(f"the caller went away before its answer: {error}")


class Descriptor:
    """The shim's descriptor of CNI_NETNS, closed whether the call opens it or not."""

    def __init__(self, request: protocol.Request) -> None:
        self._fd, self._errno = request.netns, request.netns_errno

    def open(self, path: str) -> Namespace:
        """The namespace; the path is for messages only. Raises NotANamespace."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            raise NotANamespace("open network namespace", path, self._errno)
        return Namespace(fd, path)

    def close(self) -> None:
        """Close what was not opened."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _pid, uid, _gid = _PEER.unpack(raw)
    return int(uid)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(_PROMPT))


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other end was closed, and not for writing alone (af_unix.c, unix_poll)."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _key(env: Mapping[str, str]) -> tuple[str, str]:
    return env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")


def _internal(error: Exception) -> Reply:
    msg = f"internal error: {type(error).__name__}: {error}"
    return refuse(CniError(INTERNAL, msg, "please report this"))


def _wrong_version(error: protocol.WrongVersion) -> Reply:
    msg = f"podwire's executable speaks protocol version {error.version}, its daemon another"
    return refuse(CniError(TRY_AGAIN, msg, "update both to one version; nothing was done"))
