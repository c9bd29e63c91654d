"""The socket server: workers take connections, and every call goes through `cni_plugin.handle`.

One call at a time per attachment. What makes calls exclude each other beyond that is the store
and the kernel, never the daemon's memory: the standalone path may run beside it.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cni_plugin.errors import INVALID_ENVIRONMENT, TRY_AGAIN, CniError
from cni_plugin.handle import Reply, handle, refuse
from cni_plugin.host import Host, own_executables
from daemon import protocol
from daemon.keyed import KeyedLocks
from daemon.log import Log
from kernel.errors import NotANamespace
from kernel.netns import Namespace
from kernel.nft import keep_nft_open

WORKERS = 64
REQUEST_SECONDS = 10.0
_PEER = struct.Struct("=iII")


class Server:
    """Serves one listening socket until `stop`."""

    def __init__(self, listener: socket.socket, host: Host, log: Log) -> None:
        self._listener = listener
        self._host = host
        self._log = log
        self._locks = KeyedLocks()
        self._stopping = False
        self._workers = [
            threading.Thread(target=self._work, name=f"worker-{n}", daemon=True)
            for n in range(WORKERS)
        ]

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    def stop(self, seconds: float) -> bool:
        """Take no further call and finish those under way; whether all ended in time."""
        self._stopping = True
        # Wakes every worker that waits in accept; those that serve see the flag afterwards.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + seconds
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def _work(self) -> None:
        keep_nft_open()
        while not self._stopping:
            try:
                connection, _address = self._listener.accept()
            except OSError as error:
                if not self._stopping:
                    self._log.error(f"accept: {error}")
                    time.sleep(0.1)
                continue
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_SECONDS)
        try:
            if _peer_uid(connection) != 0:
                self._log.warning(f"refused a caller with uid {_peer_uid(connection)}")
                return
            request = protocol.receive(connection)
        except protocol.WrongVersion as error:
            self._answer(connection, _wrong_version(error), [])
            return
        except (protocol.ProtocolError, OSError, ValueError) as error:
            self._log.warning(f"a request could not be read: {error}")
            return
        lines: list[str] = []
        reply = self._call(request, lines)
        self._answer(connection, reply, lines)

    def _call(self, request: protocol.Request, lines: list[str]) -> Reply:
        begin = time.monotonic()
        netns = Descriptor(request)
        host = replace(
            self._host,
            program=request.program,
            executables=own_executables(Path(request.executable)),
            open_netns=netns.open,
            log=lines.append,
        )
        try:
            with self._locks.holding(_key(request.env)):
                reply = handle(request.env, request.stdin, host)
        finally:
            netns.close()
        self._log.call(request.env, reply, time.monotonic() - begin, lines)
        return reply

    def _answer(self, connection: socket.socket, reply: Reply, lines: list[str]) -> None:
        stderr = "".join(f"{line}\n" for line in lines).encode()
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


def _key(env: Mapping[str, str]) -> tuple[str, str]:
    return env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")


def _wrong_version(error: protocol.WrongVersion) -> Reply:
    msg = f"podwire's executable speaks protocol version {error.version}, its daemon another"
    return refuse(CniError(TRY_AGAIN, msg, "update both to one version; nothing was done"))


def listen(path: Path) -> socket.socket:
    """A listening socket that root alone can reach; an earlier daemon's dead socket is replaced.

    Raises CniError where a daemon answers there, OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_socket() and _is_alive(path):
        raise CniError(INVALID_ENVIRONMENT, f"another podwired answers at {path}")
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(1024)
    return listener


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
