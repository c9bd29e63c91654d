"""The Kubernetes API over HTTP: a few requests, each bounded in bytes and in time.

lightkube verifies and authenticates; a token file that was rotated is read again after a 401.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from daemon.config.schema import KubernetesSettings
from daemon.sources.kubernetes.kubeconfig import exposed_files, read_config
from daemon.sources.kubernetes.objects import find_position
from daemon.sources.remote import SourceError

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.config.models import User

CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
ANSWER_MAX, ANSWER_SECONDS = 32 << 20, 120.0
"""Bytes of an answer, unpacked, and how long it may take: of a list, a node has about 800 bytes."""
EVENT_MAX = 2 << 20
"""Bytes of an event: etcd takes requests of at most 1.5 MiB (clientv3, --max-request-bytes)."""
VERSION_MIN = 1, 30
"""From here on ValidatingAdmissionPolicy is stable (KEP-3488)."""
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


def failure_of(status: object, request: str, code: int = 0) -> ApiError:
    """The error that a metav1.Status describes, or whatever is in its place. code: HTTP's."""
    known = status if isinstance(status, dict) else {}
    given = known.get("code")
    code = code or (given if isinstance(given, int) else 0)
    return ApiError(code, str(known.get("reason", "")), str(known.get("message", "")), request)


class BadResponse(SourceError):
    """A request was accepted, and its response cannot be read."""


class Api:
    """One client's connections. received: called with the bytes of each response as they arrive."""

    server = ""
    """The server's URL."""

    def __init__(self, settings: KubernetesSettings, received: Callable[[int], None]) -> None:
        config = read_config(settings)
        self.server = str(config.cluster.server)
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
        self._watched: list[Any] = []
        self._interrupted = False

    def get(self, path: str, query: Query | None = None) -> Any:
        """An object or a whole list. Raises SourceError."""
        return self._ask("GET", path, query)

    def get_list(self, path: str, query: Query) -> tuple[list[Any], str]:
        """The items of a list, and its resourceVersion. Raises SourceError.

        With anything else in its place all routes would be withdrawn.
        """
        root = self.get(path, query)
        items = root.get("items") if isinstance(root, dict) else None
        position = find_position(root)
        if not isinstance(items, list) or not position:
            why = "has no items, or no resourceVersion"
            raise BadResponse(f"the Kubernetes API's list {path} {why}")
        return items, position

    def count(self, path: str) -> tuple[int, str]:
        """How many items a list has, and its resourceVersion. Raises SourceError."""
        root = self.get(path, {"limit": "1"})
        metadata = root.get("metadata") if isinstance(root, dict) else None
        more = metadata.get("remainingItemCount") if isinstance(metadata, dict) else None
        return 1 + more if isinstance(more, int) else 1, find_position(root)

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

    def apply(self, path: str, thing: Mapping[str, Any], manager: str) -> Any:
        """Server-side apply, forced; the object as it is stored then.

        Raises SourceError; BadResponse where the stored object cannot be read.
        """
        query = {"fieldManager": manager, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}  # of which JSON is a part
        return self._ask("PATCH", path, query, headers, json.dumps(thing).encode())

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
    ) -> Any:
        with self._send(verb, path, query, headers, body) as response:
            data = self._read(response)
        try:
            return json.loads(data, object_hook=_without_managers)
        except (ValueError, RecursionError) as error:
            raise BadResponse(f"the Kubernetes API answers {verb} {path} with no JSON") from error

    @contextmanager
    def watch(self, path: str, query: Query, silence: float) -> Iterator[Iterator[list[bytes]]]:
        """Lines as they arrive, until the API ends them. Raises SourceError.

        silence: seconds without any byte after which the connection counts as dead.
        """
        with self._send("GET", path, {**query, "watch": "1"}, read=silence) as response:
            stream = response.extensions.get("network_stream")
            self._watched.append(stream)
            try:
                if self._interrupted:
                    raise SourceError("the watch was interrupted")
                yield self._lines(response)
            finally:
                self._watched.remove(stream)

    def _lines(self, response: httpx2.Response) -> Iterator[list[bytes]]:
        rest = b""
        for part in response.iter_raw():
            self._received(len(part))
            *lines, rest = (rest + part).split(b"\n")
            if max(map(len, (rest, *lines))) > EVENT_MAX:
                raise BadResponse(f"the Kubernetes API's event has more than {EVENT_MAX} bytes")
            yield [line for line in lines if line.strip()]

    def interrupt(self) -> None:
        """End all watches, from another thread. Never raises."""
        self._interrupted = True
        for stream in tuple(self._watched):
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
        # A watch is not packed (apiserver, watch.go); a list above 128 kB is.
        fields = {"Accept": "application/json", "Accept-Encoding": "gzip", **(headers or {})}
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
            status = json.loads(self._read(response))
        except (ValueError, RecursionError, SourceError):
            status = None
        return failure_of(status, asked, response.status_code)

    def _read(self, response: httpx2.Response) -> bytearray:
        """The body, unpacked."""
        data, counted, end = bytearray(), 0, time.monotonic() + ANSWER_SECONDS
        for part in response.iter_bytes():
            self._received(response.num_bytes_downloaded - counted)
            counted = response.num_bytes_downloaded
            data += part
            if len(data) > ANSWER_MAX:
                raise BadResponse(f"the Kubernetes API's answer has more than {ANSWER_MAX} bytes")
            if time.monotonic() > end:
                raise SourceError(f"the Kubernetes API's answer takes over {ANSWER_SECONDS:.0f} s")
        return data


def _without_managers(thing: dict[str, Any]) -> dict[str, Any]:
    # What the API server notes about writers is most of an object: it goes while it is parsed.
    thing.pop("managedFields", None)
    return thing


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
