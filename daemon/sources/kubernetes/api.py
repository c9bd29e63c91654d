"""The Kubernetes API over HTTP: a few requests, each bounded in bytes and in time.

lightkube verifies and authenticates; a token file that was rotated is read again after a 401.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.config.schema import KubernetesSettings
from daemon.sources.kubernetes.kubeconfig import exposed_files, read_config
from daemon.sources.kubernetes.objects import UnusableObject, find_position
from daemon.sources.kubernetes.stream import Items, Oversized, read_json
from daemon.sources.remote import SourceError

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.config.models import User

CONNECT_SECONDS, READ_SECONDS, LIST_SECONDS = 5.0, 15.0, 300.0
OBJECT_MAX = 4 << 20
LIST_MAX = 128 << 20
"""Bytes of an answer, unpacked. A list is taken apart as it arrives, and never held."""
VERSION_MIN = 1, 30
"""From here on ValidatingAdmissionPolicy is stable (KEP-3488)."""
_PART = 1 << 16
_MESSAGE_MAX = 200
_LOGGERS = ("httpx2", "httpcore2", "lightkube", "hpack", "h2")
# A peer that disappears is noticed in about two minutes, whatever the API sends.
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),  # milliseconds
]
Query = Mapping[str, str]


class ApiError(SourceError):
    """The API refused a request. status: of HTTP; reason: as in metav1.Status, like Expired."""

    def __init__(self, status: int, reason: str, message: str, request: str) -> None:
        text = cut(message or reason)
        super().__init__(f"the Kubernetes API answers {request} with {status}: {text}")
        self.status, self.reason = status, reason


class BadResponse(SourceError):
    """A request was accepted, and its response cannot be read."""


@dataclass(frozen=True, slots=True)
class Survey:
    """How many items a list has, and its resourceVersion; empty where it has none."""

    size: int
    position: str


class Api:
    """One client's connections. received: called with the bytes of each response as they arrive."""

    def __init__(self, settings: KubernetesSettings, received: Callable[[int], None]) -> None:
        config = read_config(settings)
        import httpx2
        from lightkube.core.exceptions import ConfigError

        # ConfigError: of an exec plugin that gives out tokens.
        self._errors = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ConfigError)
        self._unsendable = (httpx2.LocalProtocolError, UnicodeError)
        self._secrets = _secrets_of(config)
        self.exposed = tuple(exposed_files(config))
        """Files with secrets that other users may read."""
        self._timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        self._received = received
        self._client = _open_session(config, self._timeout)
        self._watched: Any = None
        self._interrupted = False

    def get(self, path: str, query: Query | None = None) -> Any:
        """An object. Raises SourceError."""
        data = self._ask("GET", path, query)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadResponse(f"the Kubernetes API answers GET {path} with no JSON") from error

    def check_version(self) -> None:
        """Raise SourceError where the API server is too old for podwire."""
        found = self.get("/version")
        text = str(found.get("gitVersion", "")) if isinstance(found, dict) else ""
        version = re.match(r"v(\d+)\.(\d+)", text)
        if version is None:
            raise BadResponse(f"the Kubernetes API's version cannot be read: {cut(text)!r}")
        if tuple(map(int, version.groups())) < VERSION_MIN:
            needed = ".".join(map(str, VERSION_MIN))
            why = "older ones lack the admission policy that keeps each daemon to its node"
            raise SourceError(f"Kubernetes {needed} or newer is needed, not {cut(text)}: {why}")

    def survey(self, path: str) -> Survey:
        """The size and the version of a list, without the list. Raises SourceError."""
        items, count = self.items(path, {"limit": "1"}), 0
        while True:
            try:
                next(items)
                count += 1
            except StopIteration as end:
                metadata = end.value.get("metadata") if isinstance(end.value, dict) else None
                more = metadata.get("remainingItemCount") if isinstance(metadata, dict) else None
                count += more if isinstance(more, int) else 0
                return Survey(count, find_position(end.value))

    def apply(self, path: str, thing: Mapping[str, Any], manager: str) -> Any:
        """Server-side apply, forced; the object as it is stored then.

        Raises SourceError; BadResponse where the stored object cannot be read.
        """
        query = {"fieldManager": manager, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}  # of which JSON is a part
        data = self._ask("PATCH", path, query, headers, json.dumps(thing).encode())
        try:
            return read_json(data)
        except UnusableObject as error:
            raise BadResponse(f"the Kubernetes API's answer to PATCH {path}: {error}") from error

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

    def items(self, path: str, query: Query) -> Generator[Any, None, Any]:
        """The items of a list; the generator's value is the list without them.

        Raises SourceError; the items before that are not the whole list then.
        """
        items = Items()
        with self._send("GET", path, query, {"Accept-Encoding": "gzip"}) as response:
            parts: Iterable[bytes] = self._parts(response, LIST_MAX, LIST_SECONDS)
            if response.headers.get("Content-Encoding") == "gzip":
                parts = _unpack(parts, LIST_MAX)
            try:
                for part in parts:
                    yield from items.feed(part)
                yield from items.feed(b"", is_last=True)
                return items.rest()
            except (Oversized, ValueError, RecursionError, zlib.error) as error:
                raise SourceError(f"the Kubernetes API's list is no list: {error}") from error

    @contextmanager
    def watch(self, path: str, query: Query, silence: float) -> Iterator[Iterator[bytes]]:
        """Bytes as they arrive, until the API ends them. Raises SourceError.

        silence: seconds without any after which the connection counts as dead.
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
        fields = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        asked = f"{verb} {path}"
        try:
            request = self._client.build_request(
                verb, path, params=query, headers=fields, content=body, extensions=extensions
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
            # Its message quotes what was to be sent, the token too.
            what = "is the user's token one line of ASCII?"
            kind = type(error).__name__
            raise SourceError(f"the Kubernetes API cannot be asked: {kind}: {what}") from None
        except self._errors as error:
            raise SourceError(
                f"the Kubernetes API cannot be reached: {self._describe(error)}"
            ) from None
        except (OSError, EOFError) as error:
            raise SourceError(
                f"the Kubernetes API cannot be asked: {self._describe(error)}"
            ) from None

    def _describe(self, error: Exception) -> str:
        """An error's message, or only its type where a secret might be in it."""
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
                raise BadResponse(f"the Kubernetes API's answer has more than {most} bytes")
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
    """Text of the API, shortened so that a message has room for our hint."""
    return text if len(text) <= _MESSAGE_MAX else f"{text[:_MESSAGE_MAX]}..."


def _strip_token(user: User) -> None:
    """Strip white space as client-go does. Raises SourceError where a token cannot be sent."""
    if user.token is None:
        return
    user.token = user.token.strip()
    if not (user.token.isascii() and user.token.isprintable()):
        raise SourceError("source.kubernetes: the user's token is no single line of ASCII")


def _open_session(config: SingleConfig, timeout: httpx2.Timeout) -> httpx2.Client:
    import httpx2
    from lightkube.config.client_adapter import user_auth, verify_cluster
    from lightkube.config.models import User as NoUser
    from lightkube.core.exceptions import ConfigError

    for name in _LOGGERS:  # they print requests and headers, tokens included
        logging.getLogger(name).setLevel(logging.CRITICAL)
    user = config.user or NoUser()
    _strip_token(user)
    try:
        context = verify_cluster(config.cluster, user, config.abs_file, trust_env=False)
        auth = user_auth(user)
    except (ConfigError, OSError, ValueError) as error:
        raise SourceError(f"source.kubernetes: its certificates or user: {error}") from error
    limits = httpx2.Limits(max_connections=8, max_keepalive_connections=1, keepalive_expiry=15)
    transport = httpx2.HTTPTransport(
        verify=context, trust_env=False, limits=limits, socket_options=_KEEP_ALIVE
    )
    headers = {"User-Agent": "podwired"}
    return httpx2.Client(
        base_url=config.cluster.server,
        auth=auth,
        transport=transport,
        timeout=timeout,
        headers=headers,
        trust_env=False,
    )
