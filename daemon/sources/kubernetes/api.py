"""The Kubernetes API over HTTP: a few requests, each bounded in bytes and in time.

Answers stay bytes until somebody takes them apart.
"""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from daemon.config.schema import KubernetesSettings
from daemon.sources.kubernetes.events import read_json
from daemon.sources.kubernetes.kubeconfig import exposed_files
from daemon.sources.kubernetes.objects import Unusable
from daemon.sources.kubernetes.session import open_session, read_config
from daemon.sources.kubernetes.stream import Items, Oversized
from daemon.sources.remote import SourceError

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig

CONNECT_SECONDS, READ_SECONDS, LIST_SECONDS = 5.0, 15.0, 300.0
OBJECT_MAX = 4 << 20
LIST_MAX = 128 << 20
"""Bytes of an answer, unpacked. A list is taken apart as it arrives, and never held."""
_PART = 1 << 16
_MESSAGE_MAX = 200
Query = Mapping[str, str]


class ApiError(SourceError):
    """The API refused a request. status: of HTTP; reason: the API's word, like Expired."""

    def __init__(self, status: int, reason: str, message: str, request: str) -> None:
        text = cut(message or reason)
        super().__init__(f"the Kubernetes API answers {request} with {status}: {text}")
        self.status, self.reason = status, reason


class BadAnswer(SourceError):
    """A request was taken, and what the API says of it cannot be read."""


class Api:
    """One client's connections. received: told of the bytes of each answer as they arrive."""

    def __init__(self, settings: KubernetesSettings, received: Callable[[int], None]) -> None:
        config = read_config(settings)
        import httpx2
        from lightkube.core.exceptions import ConfigError

        # ConfigError: of a program that gives out tokens.
        self._errors = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ConfigError)
        self._unsendable = (httpx2.LocalProtocolError, UnicodeError)
        self._secrets = _secrets_of(config)
        self.exposed = tuple(exposed_files(config))
        """Files with secrets that others may read, too."""
        self._timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        self._received = received
        self._client = open_session(config, self._timeout)
        self._watched: Any = None
        self._interrupted = False

    def get(self, path: str, query: Query | None = None) -> Any:
        """An object. Raises SourceError."""
        data = self._ask("GET", path, query)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"the Kubernetes API answers GET {path} with no JSON") from error

    def count(self, path: str) -> Any:
        """A list without its items: of when it is. Raises SourceError."""
        items = self.items(path, {"limit": "1"})
        while True:
            try:
                next(items)
            except StopIteration as end:
                return end.value

    def apply(self, path: str, thing: Mapping[str, Any], manager: str) -> Any:
        """Server-side apply, as the owner of what is in it; the whole, as others could read it.

        Raises SourceError; BadAnswer where nobody can.
        """
        query = {"fieldManager": manager, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}  # of which JSON is a part
        data = self._ask("PATCH", path, query, headers, json.dumps(thing).encode())
        try:
            return read_json(data)
        except Unusable as error:
            raise BadAnswer(f"the Kubernetes API's answer to PATCH {path}: {error}") from error

    def delete(self, path: str) -> None:
        """Delete an object. Raises SourceError."""
        self._ask("DELETE", path)

    def _ask(
        self,
        verb: str,
        path: str,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        with self._send(verb, path, query, headers, body) as response:
            return b"".join(self._parts(response, OBJECT_MAX))

    def items(self, path: str, query: Query) -> Generator[bytes | None, None, Any]:
        """The items of a list; the generator's value is the list without them.

        Raises SourceError; then what was given before is not the whole.
        """
        items = Items()
        with self._send("GET", path, query, {"Accept-Encoding": "gzip"}) as response:
            parts: Iterable[bytes] = self._parts(response, LIST_MAX, LIST_SECONDS)
            if response.headers.get("Content-Encoding") == "gzip":
                parts = _unpack(parts, LIST_MAX)
            try:
                for part in parts:
                    yield from items.feed(part)
                return items.rest()
            except (Oversized, ValueError, RecursionError, zlib.error) as error:
                raise SourceError(f"the Kubernetes API's list is no list: {error}") from error

    @contextmanager
    def watch(self, path: str, query: Query, silence: float) -> Iterator[Iterator[bytes]]:
        """Bytes as they arrive, until the API ends them. Raises SourceError.

        silence: seconds without any after which the API counts as gone.
        """
        with self._send("GET", path, {**query, "watch": "1"}, read=silence) as response:
            self._watched = response.extensions.get("network_stream")
            try:
                if self._interrupted:
                    raise SourceError("the watch was interrupted")
                yield response.iter_raw()
            finally:
                self._watched = None

    def interrupt(self) -> None:
        """End a watch, from another thread. Never raises."""
        self._interrupted = True
        stream = self._watched
        with suppress(Exception):
            # Not the method of SSLSocket, which takes TLS off a socket that is being read.
            socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def _send(
        self,
        verb: str,
        path: str,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        read: float = READ_SECONDS,
    ) -> Iterator[httpx2.Response]:
        extensions = {"timeout": {**self._timeout.as_dict(), "read": read}}
        words = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        asked = f"{verb} {path}"
        try:
            request = self._client.build_request(
                verb, path, params=query, headers=words, content=body, extensions=extensions
            )
            response = self._client.send(request, stream=True)
            try:
                self._received(_head_size(response))
                if not response.is_success:
                    raise self._refusal(response, asked)
                yield response
            finally:
                response.close()
        except self._unsendable as error:
            # Its words quote what was to be sent, the token among it.
            what = "is the user's token one line of ASCII?"
            kind = type(error).__name__
            raise SourceError(f"the Kubernetes API cannot be asked: {kind}: {what}") from None
        except self._errors as error:
            raise SourceError(f"the Kubernetes API cannot be reached: {self._say(error)}") from None
        except (OSError, EOFError) as error:
            raise SourceError(f"the Kubernetes API cannot be asked: {self._say(error)}") from None

    def _say(self, error: Exception) -> str:
        """An error's words, unless a secret is among them."""
        text = str(error)
        if not text or "Bearer" in text or any(secret in text for secret in self._secrets):
            return type(error).__name__
        return cut(text)

    def _refusal(self, response: httpx2.Response, asked: str) -> ApiError:
        try:
            status = json.loads(b"".join(self._parts(response, OBJECT_MAX)))
        except (ValueError, RecursionError, SourceError):
            status = None
        known = status if isinstance(status, dict) else {}
        reason, message = str(known.get("reason", "")), str(known.get("message", ""))
        return ApiError(response.status_code, reason, message, asked)

    def _parts(
        self, response: httpx2.Response, most: int, seconds: float = 2 * READ_SECONDS
    ) -> Iterator[bytes]:
        total, end = 0, time.monotonic() + seconds
        for part in response.iter_raw():
            self._received(len(part))
            total += len(part)
            if total > most:
                raise BadAnswer(f"the Kubernetes API's answer has more than {most} bytes")
            if time.monotonic() > end:
                raise SourceError(f"the Kubernetes API's answer took more than {seconds:.0f} s")
            yield part


def _unpack(parts: Iterable[bytes], most: int) -> Iterator[bytes]:
    """What a gzip stream holds, in parts of bounded size. Raises zlib.error, SourceError."""
    inflater, total = zlib.decompressobj(wbits=31), 0
    for part in parts:
        packed = part
        while packed:
            data = inflater.decompress(packed, _PART)
            total += len(data)
            if total > most:
                raise SourceError(f"the Kubernetes API's answer has more than {most} bytes")
            yield data
            packed = inflater.unconsumed_tail
    yield inflater.flush()


def _head_size(response: httpx2.Response) -> int:
    return 17 + sum(len(name) + len(value) + 4 for name, value in response.headers.raw)


def _secrets_of(config: SingleConfig) -> tuple[str, ...]:
    user = config.user
    return tuple(filter(None, (user.token, user.password))) if user else ()


def cut(text: str) -> str:
    """Somebody else's words, no more of them than leave room for ours."""
    return text if len(text) <= _MESSAGE_MAX else f"{text[:_MESSAGE_MAX]}..."


def node_path(name: str) -> str:
    """Where a Node is."""
    return f"/api/v1/nodes/{name}"
