"""etcd's JSON gateway: calls with time-outs, tokens, and failover to the next member.

https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/. The library etcd3gw connects to one member
and has no users; the gateway decides to which member, and as which user.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ssl import SSLCertVerificationError, SSLError
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import ConnectionFailedError, ConnectionTimeoutError, Etcd3Exception
from requests.adapters import HTTPAdapter

from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.sources.etcd.credentials import check_files, find_authorities, read_password
from daemon.sources.remote import SourceError

Body = Mapping[str, Any]
T = TypeVar("T")
CONNECT_SECONDS, ANSWER_SECONDS = 4.0, 10.0
"""etcd itself gives a request up after 7 s by default (5 s and two elections)."""

# The kernel notices a member that vanished (tcp(7)): the end of a stream depends on it.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


# google/rpc/code.proto, as the gateway gives them in the body of an error.
_UNAUTHENTICATED, _DENIED, _UNAVAILABLE = 16, 7, 14
_INVALID, _PRECONDITION = 3, 9
_DEADLINE, _INTERNAL, _UNKNOWN = 4, 13, 2
_TEXT_MAX = 200
_PAGE_MAX = 80


class Unreachable(SourceError):
    """This member does not answer, or cannot now (no leader): another one may."""


class Unauthenticated(SourceError):
    """The token is not valid any more: a new one helps."""


class Denied(SourceError):
    """User, password, certificate or role are not enough."""


class RequestRefused(SourceError):
    """etcd refuses the request for another reason; code: gRPC's."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class _Adapter(HTTPAdapter):
    """Connections with TCP keep-alive."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=list(_KEEPALIVE), **kwargs)


class Gateway:
    """All members of one etcd.

    received: called with the number of bytes of each answer. first: the member to begin with,
    another one for each node.
    """

    def __init__(
        self,
        settings: EtcdSettings,
        log: Log,
        *,
        first: int = 0,
        received: Callable[[int], None] = lambda _bytes: None,
        timeouts: tuple[float, float] = (CONNECT_SECONDS, ANSWER_SECONDS),
    ) -> None:
        self._endpoints = settings.endpoints
        self._settings, self._log, self._timeouts = settings, log, timeouts
        self._received = received
        self._current = first % len(self._endpoints)
        self._clients: dict[str, Etcd3Client] = {}
        self._mutex = threading.RLock()
        self._token: str | None = None
        self._closed = False
        self._status = 0
        if settings.username and any(e.startswith("http:") for e in self._endpoints):
            log.warning("the password goes to etcd unencrypted: an endpoint begins with http:")

    @property
    def endpoint(self) -> str:
        """The member in use."""
        return self._endpoints[self._current]

    def call(self, path: str, body: Body) -> dict[str, Any]:
        """The answer of the first member that gives one. Raises SourceError.

        Where none does, some of them may have done it all the same.
        """
        with self._mutex:
            return self._try_each(lambda client: self._post(client, path, body))

    def watch(self, body: Body) -> tuple[str, requests.Response]:
        """An endpoint, and its open answer: a stream of events. Raises SourceError."""
        # Without the mutex: the lease is kept meanwhile, however long a member takes.
        return self._try_each(lambda client: self._open(client, body))

    def close(self) -> None:
        """Close the connections; calls after that fail."""
        self._closed = True
        for client in tuple(self._clients.values()):
            client.session.close()

    def forget_token(self) -> None:
        """Ask for a new token at the next call."""
        self._token = None

    def leave(self, endpoint: str) -> None:
        """Use the next member from now on, if that one is in use."""
        with self._mutex:
            if self.endpoint == endpoint:
                self._current = (self._current + 1) % len(self._endpoints)

    def _try_each(self, work: Callable[[Etcd3Client], T]) -> T:
        errors = []
        for _ in self._endpoints:
            endpoint = self.endpoint
            try:
                return self._work_as_user(work)
            except Unreachable as error:
                errors.append(str(error))
                self.leave(endpoint)
                if self._closed:
                    break
        raise Unreachable("; ".join(errors))

    def _work_as_user(self, work: Callable[[Etcd3Client], T]) -> T:
        """Work with a token that is valid: a member that restarted knows none of the old ones."""
        try:
            return work(self._ready_client())
        except Unauthenticated:
            self._token = None
            return work(self._ready_client())

    def _ready_client(self) -> Etcd3Client:
        with self._mutex:
            return self._client(self._authenticate())

    def _authenticate(self) -> str:
        """The token; "" where etcd needs none."""
        if self._token is None:
            self._token = self._get_token() if self._settings.username else ""
        return self._token

    def _get_token(self) -> str:
        name, password = self._settings.username, read_password(self._settings)
        try:
            body = {"name": name, "password": password}
            token = self._post(self._client(""), "/auth/authenticate", body).get("token")
        except RequestRefused as error:
            if not _is_auth_off(error):
                raise
            self._log.warning(f"etcd has no authentication: user {name} and others may do anything")
            return ""
        if not isinstance(token, str) or not token.isprintable():
            raise SourceError(f"{self.endpoint}: gave no token to user {name}")
        return token

    def _client(self, token: str) -> Etcd3Client:
        """The client of the current member, with that token."""
        client = self._clients.get(self.endpoint)
        if client is None:
            client = self._clients[self.endpoint] = self._make_client()
        if token:
            client.session.headers["Authorization"] = token
        else:
            client.session.headers.pop("Authorization", None)
        return client

    def _make_client(self) -> Etcd3Client:
        check_files(self._settings)
        url = urlsplit(self.endpoint)
        session = requests.Session()
        # Neither proxies, nor other authorities, nor passwords from root's environment and files.
        session.trust_env = False
        session.mount("https://", _Adapter())
        session.mount("http://", _Adapter())
        if url.scheme == "https":
            session.verify = find_authorities(self._settings)
        if self._settings.cert_file:
            session.cert = str(self._settings.cert_file), str(self._settings.key_file)
        session.hooks["response"].append(self._count)
        # requests takes a pair of seconds too, for the connection and for the answer.
        return Etcd3Client(
            url.hostname or "",
            url.port or 0,
            url.scheme,
            timeout=self._timeouts,  # type: ignore[arg-type]
            session=session,
        )

    def _count(self, response: requests.Response, **options: Any) -> None:
        self._status = response.status_code  # which the library's errors lack
        if not options.get("stream"):
            self._received(len(response.content))

    def _post(self, client: Etcd3Client, path: str, body: Body) -> dict[str, Any]:
        with self._faults(self.endpoint):
            answer = client.post(client.get_url(path), json=dict(body), allow_redirects=False)
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.endpoint}: is no etcd: its answer is no JSON object")
        return answer

    def _open(self, client: Etcd3Client, body: Body) -> tuple[str, requests.Response]:
        endpoint = next(e for e, c in tuple(self._clients.items()) if c is client)
        with self._faults(endpoint):
            response = client.session.post(
                client.get_url("/watch"),
                json={"create_request": dict(body)},
                # A member without a leader ends the stream (clientv3, WithRequireLeader).
                headers={"Grpc-Metadata-hasleader": "true"},
                stream=True,
                timeout=self._timeouts,
                allow_redirects=False,
            )
        if response.status_code != requests.codes["ok"]:
            raise error_of(endpoint, response.text, response.status_code)
        return endpoint, response

    @contextmanager
    def _faults(self, endpoint: str) -> Iterator[None]:
        """The library's errors as those of this module."""
        try:
            yield
        except (ConnectionFailedError, ConnectionTimeoutError) as error:
            body = error.detail_text or ""
            if body.lstrip().startswith(("{", "<")):
                raise error_of(endpoint, body, self._status) from None
            raise Unreachable(f"{endpoint}: {root_of(error)}") from None
        except Etcd3Exception as error:
            raise error_of(endpoint, error.detail_text or "", self._status) from None
        except requests.JSONDecodeError as error:
            raise error_of(endpoint, str(error.doc), self._status) from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise Unreachable(f"{endpoint}: {root_of(error)}") from None


# -- errors


def error_of(endpoint: str, answer: str, status: int = 0) -> SourceError:
    """The error that an endpoint's answer describes. status: HTTP's; 0 = not known."""
    try:
        body = json.loads(answer)
        code, message = int(body["code"]), str(body.get("message") or body["error"])
    except (ValueError, TypeError, KeyError, AttributeError):
        page = ascii(" ".join(answer.split())[:_PAGE_MAX])
        page = f"HTTP {status}, {page}" if status else page
        return Unreachable(f"{endpoint}: is no etcd: {page}")
    text = f"{endpoint}: {message[:_TEXT_MAX].removeprefix('etcdserver: ')}"
    return _by_code(code, message, text)


def _by_code(code: int, message: str, text: str) -> SourceError:
    if (
        code == _UNAUTHENTICATED
        or "auth store is old" in message
        or "invalid auth token" in message
    ):
        return Unauthenticated(text)
    if code == _INVALID and "user name is empty" in message:
        return Denied(f"{text}: it requires a user: source.etcd needs username and passwordFile")
    if code == _DENIED or (code == _INVALID and "authentication failed" in message):
        return Denied(text)
    if code in (_UNAVAILABLE, _DEADLINE, _INTERNAL, _UNKNOWN):
        return Unreachable(text)
    return RequestRefused(text, code)


def _is_auth_off(error: RequestRefused) -> bool:
    """Whether etcd gave no token because it wants none (rpctypes, ErrGRPCAuthNotEnabled)."""
    return error.code == _PRECONDITION and "authentication is not enabled" in str(error)


def root_of(error: BaseException) -> str:
    """The cause at the end of an HTTP client's chain of errors, without the objects it quotes."""
    for reason in reversed([e for e in _chain(error) if isinstance(e, OSError)]):
        if description := _describe(reason):
            return description
    last = list(_chain(error))[-1]
    return str(last)[:_TEXT_MAX] or type(last).__name__


def _describe(error: OSError) -> str:
    if isinstance(error, SSLCertVerificationError):
        return f"TLS: its certificate is not accepted: {error.verify_message}"
    if isinstance(error, SSLError):
        return f"TLS: {error.reason or error.strerror or error}"
    return error.strerror or (os.strerror(error.errno) if error.errno else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
        todo += [e for e in inner if isinstance(e, BaseException)]
