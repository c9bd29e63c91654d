"""One process's share of the calls: each goes through `cni_plugin.handle`.

One call at a time per attachment. What makes calls exclude each other beyond that is the store
and the kernel, never the daemon's memory: the standalone path may run beside it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cni_plugin.errors import INTERNAL, TRY_AGAIN, CniError
from cni_plugin.handle import Reply, handle, refuse
from cni_plugin.host import Host
from daemon.cni_server import protocol
from daemon.cni_server.attachment_locks import AttachmentLocks
from daemon.cni_server.call_counters import ProcessCounters, code_of
from daemon.cni_server.call_log import identity, log_call
from daemon.cni_server.listener import Acceptor
from daemon.cni_server.worker_pool import Delegations, WorkerPool
from daemon.log import Log
from kernel.errors import NotANamespace
from kernel.netns import Namespace

REQUEST_SECONDS = REPLY_SECONDS = 10.0
_LAST_SECONDS = 5.0
"""Seconds that a call has to answer after the plugin that it waits for was killed."""
_PEER = struct.Struct("=iII")
_path = lru_cache(16)(Path)  # a node has one executable, or a few


class Server:
    """Serves one process's connections until the listening socket is shut down."""

    def __init__(
        self,
        acceptor: Acceptor,
        make_host: Callable[..., Host],
        pool: WorkerPool,
        delegations: Delegations,
        locks: AttachmentLocks,
        counters: ProcessCounters,
        log: Log,
    ) -> None:
        self._acceptor, self._make_host = acceptor, make_host
        self._pool, self._delegations = pool, delegations
        self._locks, self._counters, self._log = locks, counters, log
        pool.start(self._work, acceptor.has_more)

    def finish(self, seconds: float) -> bool:
        """Finish the calls in flight, once the socket is shut down; whether all ended in time.

        Towards the end of the time the plugins are killed that calls wait for.
        """
        until = time.monotonic() + seconds
        if not self._pool.join(until - _LAST_SECONDS):
            self._delegations.stop()
        return self._pool.join(until)

    def _work(self) -> bool:
        """Serve one connection; False once there are no more. Never raises."""
        connection = self._acceptor.accept()
        if connection is None:
            return False
        self._pool.taken()
        with connection:
            try:
                request = self._receive(connection)
                if request is not None:
                    self._call(connection, request)
            except Exception as error:
                self._log.error(f"internal error {type(error).__name__}: {error}")
                self._answer(connection, _internal(error), [])
        return True

    def _receive(self, connection: socket.socket) -> protocol.Request | None:
        """The request; None where there is none to serve, which has been dealt with."""
        uid = _peer_uid(connection)
        if uid != 0:
            self._log.warning(f"refused a caller with uid {uid}")
            return None
        try:
            return protocol.receive(connection, REQUEST_SECONDS, self._pool.pass_on)
        except protocol.NoRequest:
            return None
        except protocol.TakenBack:
            self._log.warning("a call was not begun in time, and its caller took it back")
        except protocol.WrongVersion as error:
            self._answer(connection, _wrong_version(error), [])
        except (protocol.ProtocolError, OSError, ValueError) as error:
            self._log.warning(f"a request could not be read: {error}")
        return None

    def _call(self, connection: socket.socket, request: protocol.Request) -> None:
        env, netns = request.env, PassedNamespace(request)
        lines: list[str] = []
        reply, verb = None, env.get("CNI_COMMAND", "")
        began = handled = self._counters.begin(verb)
        try:
            host = self._make_host(
                program=request.program,
                executable=_path(request.executable),
                open_netns=netns.open,
                log=lines.append,
                began=began,
            )
            reply = self._handle(connection, request, host)
            handled = time.monotonic()
            if reply is not None:  # first of all: the caller need not wait for what we note
                self._answer(connection, reply, lines)
                log_call(self._log, env, reply, handled - began, lines)
        finally:
            self._counters.end(verb, handled - began, code_of(reply))
            netns.close()

    def _handle(
        self, connection: socket.socket, request: protocol.Request, host: Host
    ) -> Reply | None:
        env = request.env
        container_id = env.get("CNI_CONTAINERID", "")
        if not container_id:
            return self._compute(connection, request, host)
        with self._locks.holding((container_id, env.get("CNI_IFNAME", ""))):
            return self._compute(connection, request, host)

    def _compute(
        self, connection: socket.socket, request: protocol.Request, host: Host
    ) -> Reply | None:
        """The reply; None where the caller died while its call waited.

        The runtime may have sent DEL since, on another connection: an ADD made now would stay.
        """
        if _is_gone(connection):
            who = identity(request.env)
            self._log.warning("the caller went away while its call waited; nothing was done", **who)
            return None
        self._pool.share()
        return handle(request.env, request.stdin, host)

    def _answer(self, connection: socket.socket, reply: Reply, lines: list[str]) -> None:
        # As Python's own stderr writes what is no text.
        stderr = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
        try:
            protocol.send_reply(
                connection, REPLY_SECONDS, reply.status, reply.stdout, stderr, self._pool.pass_on
            )
        except OSError as error:
            # The runtime gave up on this call: it will send DEL, which finds the record.
            self._log.warning(f"the caller went away before its answer: {error}")


class PassedNamespace:
    """The shim's descriptor of CNI_NETNS, as often as the call opens it."""

    def __init__(self, request: protocol.Request) -> None:
        self._fd, self._errno = request.netns, request.netns_errno

    def open(self, path: str) -> Namespace:
        """The namespace; the path is for messages only. Raises NotANamespace."""
        if self._fd < 0:
            raise NotANamespace("open network namespace", path, self._errno)
        return Namespace(os.dup(self._fd), path)

    def close(self) -> None:
        """Close the shim's descriptor; namespaces that were opened are their users'."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _pid, uid, _gid = _PEER.unpack(raw)
    return int(uid)


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other end was closed, and not for writing alone (af_unix.c, unix_poll)."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _internal(error: Exception) -> Reply:
    msg = f"internal error: {type(error).__name__}: {error}"
    return refuse(CniError(INTERNAL, msg, "please report this"))


def _wrong_version(error: protocol.WrongVersion) -> Reply:
    msg = f"podwire's executable speaks protocol version {error.version}, its daemon another"
    return refuse(CniError(TRY_AGAIN, msg, "update both to one version; nothing was done"))
