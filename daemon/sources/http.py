"""HTTP to an API server or to etcd's gateway: bounded answers, and streams that can be ended."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import httpx2

from daemon.sources.remote import SourceError

CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
"""READ_SECONDS: without a byte of an answer. etcd itself gives a request up after 7 s by default
(5 s and two elections)."""
ANSWER_MAX, ANSWER_SECONDS = 32 << 20, 120.0
"""Bytes of an answer, unpacked, and how long it may take."""
LINE_MAX = 20 << 20
"""Bytes of a stream's line, and of a list's item: the API server takes objects of at most 3 MiB
(apiserver, MaxRequestBodyBytes), and writes some characters as six bytes (encoding/json). Any pod's
author may have it send that. Of etcd's gateway they are fewer."""
_REASON_MAX = 200
_LOGGERS = ("httpx2", "httpcore2")
# A peer that disappears is noticed in about two minutes, whatever it sends (tcp(7)).
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),  # milliseconds
]
_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, EOFError)
_UNSENDABLE = (httpx2.LocalProtocolError, UnicodeError)


class Unreachable(SourceError):
    """There is no answer, or an answer that breaks off."""


class BadResponse(Unreachable):
    """There is an answer that cannot be read."""


class HttpRequest(NamedTuple):
    """A request. path: below the server's URL."""

    verb: str
    path: str
    query: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


Refusal = Callable[[HttpRequest, int, bytes], SourceError]
"""The error for an answer that is no success: its HTTP status, and as much of its body as came."""


class Session:
    """Connections to one server.

    name: of the server, in messages. received: called with the number of bytes as they arrive.
    server_name: of its certificate, where that is not the URL's host. secrets: texts that no
    message may contain.
    """

    def __init__(
        self,
        name: str,
        url: str,
        context: ssl.SSLContext,
        received: Callable[[int], None],
        refusal: Refusal,
        *,
        auth: httpx2.Auth | None = None,
        proxy: str | None = None,
        server_name: str | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        for logger in _LOGGERS:  # they print requests and headers, tokens included
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._name, self._received, self._secrets = name, received, secrets
        self._refusal = refusal
        limits = httpx2.Limits(max_connections=8, max_keepalive_connections=1, keepalive_expiry=15)
        # Neither proxies, nor other authorities, nor passwords of root's environment and files.
        transport = httpx2.HTTPTransport(
            verify=context,
            trust_env=False,
            limits=limits,
            socket_options=_KEEP_ALIVE,
            proxy=proxy,
        )
        self._client = httpx2.Client(
            base_url=url,
            auth=auth,
            transport=transport,
            headers={"User-Agent": "podwired", "Accept": "application/json"},
            trust_env=False,
        )
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        self._streams: list[Any] = []
        self._interrupted = False

    def ask(self, request: HttpRequest) -> bytearray:
        """The body of the answer, unpacked. Raises SourceError."""
        with self._send(request) as response:
            return self._read(response)

    @contextmanager
    def stream(self, request: HttpRequest, silence: float) -> Iterator[Iterator[bytes]]:
        """An answer as it arrives. Raises SourceError.

        silence: seconds without any byte after which the connection counts as dead.
        """
        with self._send(request) as response:
            response.request.extensions["timeout"]["read"] = silence
            stream = response.extensions.get("network_stream")
            self._streams.append(stream)
            try:
                if self._interrupted:
                    raise Unreachable(f"{self._name}: the stream was interrupted")
                yield self._parts(response)
            finally:
                self._streams.remove(stream)

    def interrupt(self) -> None:
        """End all streams, from another thread. Never raises."""
        self._interrupted = True
        for stream in tuple(self._streams):
            with suppress(Exception):
                # Not the method of SSLSocket, which takes TLS off a socket that is being read.
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def _send(self, request: HttpRequest) -> Iterator[httpx2.Response]:
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS).as_dict()
        with self._faults():
            built = self._client.build_request(
                request.verb,
                request.path,
                params=request.query,
                headers={"Accept-Encoding": "gzip", **(request.headers or {})},
                content=request.body,
                extensions={"timeout": timeout, **self._extensions},
            )
            response = self._client.send(built, stream=True)
        try:
            self._received(_head_size(response))
            if not response.is_success:
                data = self._read_refusal(response)
                raise self._refusal(request, response.status_code, data)
            yield response
        finally:
            response.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except _UNSENDABLE as error:
            # Its message quotes what was to be sent, the token too.
            why = f"{type(error).__name__}: is the user's token one line of ASCII?"
            raise SourceError(f"{self._name} cannot be asked: {why}") from None
        except _ERRORS as error:
            raise Unreachable(f"{self._name} cannot be reached: {self._describe(error)}") from None

    def _parts(self, response: httpx2.Response) -> Iterator[bytes]:
        """The body, unpacked, as it arrives."""
        counted = 0
        with self._faults():
            for part in response.iter_bytes():
                self._received(response.num_bytes_downloaded - counted)
                counted = response.num_bytes_downloaded
                yield part

    def _read(self, response: httpx2.Response) -> bytearray:
        data, end = bytearray(), time.monotonic() + ANSWER_SECONDS
        for part in self._parts(response):
            data += part
            if len(data) > ANSWER_MAX:
                raise BadResponse(f"{self._name}'s answer has more than {ANSWER_MAX} bytes")
            if time.monotonic() > end:
                raise Unreachable(f"{self._name}'s answer takes over {ANSWER_SECONDS:.0f} s")
        return data

    def _read_refusal(self, response: httpx2.Response) -> bytes:
        try:
            return bytes(self._read(response))
        except SourceError:
            return b""

    def lines_of(self, parts: Iterator[bytes]) -> Iterator[list[bytes]]:
        """The lines of an answer, as many at once as arrive. Raises BadResponse for a long one."""
        rest: list[bytes] = []
        size = 0
        for part in parts:
            *lines, tail = part.split(b"\n")
            if lines:
                lines[0] = b"".join([*rest, lines[0]])
                rest, size = [], 0
            rest.append(tail)
            size += len(tail)
            if max([size, *map(len, lines)]) > LINE_MAX:
                raise BadResponse(f"{self._name}'s event has more than {LINE_MAX} bytes")
            yield [line for line in lines if line.strip()]

    def _describe(self, error: Exception) -> str:
        """An error's message, or only its type where a secret might be in it."""
        text = str(error)
        if not text or "Bearer" in text or any(secret in text for secret in self._secrets):
            return type(error).__name__
        return text[:_REASON_MAX]


def _head_size(response: httpx2.Response) -> int:
    return 17 + sum(len(name) + len(value) + 4 for name, value in response.headers.raw)
