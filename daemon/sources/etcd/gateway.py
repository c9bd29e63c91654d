"""etcd's JSON gateway: tokens, and failover to the next member.

https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.sources.etcd.credentials import check_files, make_context, read_password
from daemon.sources.etcd.stream import Stream
from daemon.sources.http import HttpRequest, Session, Unreachable
from daemon.sources.remote import SourceError

Body = Mapping[str, Any]
T = TypeVar("T")
_PREFIX = "/v3"
"""etcd 3.4 or newer."""

# google/rpc/code.proto, as the gateway gives them in the body of an error.
_UNAUTHENTICATED, _DENIED, _UNAVAILABLE = 16, 7, 14
_INVALID, _PRECONDITION = 3, 9
_DEADLINE, _INTERNAL, _UNKNOWN = 4, 13, 2
_TEXT_MAX = 200
_PAGE_MAX = 80


class Unauthenticated(SourceError):
    """The token is not valid any more: a new one helps."""


class Denied(SourceError):
    """User, password, certificate or role are not enough."""


class RequestRefused(SourceError):
    """etcd refuses the request for another reason; code: gRPC's."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


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
    ) -> None:
        self._endpoints = settings.endpoints
        self._settings, self._log, self._received = settings, log, received
        self._current = first % len(self._endpoints)
        self._sessions: dict[str, Session] = {}
        self._mutex = threading.RLock()
        self._token: str | None = None
        self._closed = False
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
            return self._try_each(lambda endpoint, token: self._post(endpoint, token, path, body))

    def watch(self, body: Body, silence: float) -> Stream:
        """The open answer of a member, over a connection of its own. Raises SourceError.

        silence: seconds without data that end it.
        """
        # Without the mutex: the lease is kept meanwhile, however long a member takes.
        return self._try_each(lambda endpoint, token: self._open(endpoint, token, body, silence))

    def close(self) -> None:
        """Close the connections; calls after that fail."""
        self._closed = True
        for session in tuple(self._sessions.values()):
            session.close()

    def forget_token(self) -> None:
        """Ask for a new token at the next call."""
        self._token = None

    def leave(self, endpoint: str) -> None:
        """Use the next member from now on, if that one is in use."""
        with self._mutex:
            if self.endpoint == endpoint:
                self._current = (self._current + 1) % len(self._endpoints)
            # The next session reads the certificates again: they may be why.
            session = self._sessions.pop(endpoint, None)
            if session is not None:
                session.close()

    def _try_each(self, work: Callable[[str, str], T]) -> T:
        """What that gives for a member and a token."""
        errors = []
        for _ in self._endpoints:
            endpoint = self.endpoint
            try:
                return self._work_as_user(endpoint, work)
            except Unreachable as error:
                errors.append(str(error))
                self.leave(endpoint)
                if self._closed:
                    break
        raise Unreachable("; ".join(errors))

    def _work_as_user(self, endpoint: str, work: Callable[[str, str], T]) -> T:
        """Work with a token that is valid: a member that restarted knows none of the old ones."""
        try:
            return work(endpoint, self._authenticate(endpoint))
        except Unauthenticated:
            self._token = None
            return work(endpoint, self._authenticate(endpoint))

    def _authenticate(self, endpoint: str) -> str:
        """The token; "" where etcd needs none."""
        with self._mutex:
            if self._token is None:
                self._token = self._get_token(endpoint) if self._settings.username else ""
            return self._token

    def _get_token(self, endpoint: str) -> str:
        name, password = self._settings.username, read_password(self._settings)
        try:
            body = {"name": name, "password": password}
            token = self._post(endpoint, "", "/auth/authenticate", body).get("token")
        except RequestRefused as error:
            if not _is_auth_off(error):
                raise
            self._log.warning(f"etcd has no authentication: user {name} and others may do anything")
            return ""
        if not isinstance(token, str) or not token.isprintable():
            raise SourceError(f"{endpoint}: gave no token to user {name}")
        return token

    def _post(self, endpoint: str, token: str, path: str, body: Body) -> dict[str, Any]:
        session = self._sessions.get(endpoint)
        if session is None:
            session = self._sessions[endpoint] = self._open_session(endpoint)
        data = session.ask(_request(path, token, body))
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise error_of(endpoint, data, 200) from None
        if not isinstance(answer, dict):
            raise Unreachable(f"{endpoint}: is no etcd: its answer is no JSON object")
        return answer

    def _open(self, endpoint: str, token: str, body: Body, silence: float) -> Stream:
        # A member without a leader ends the stream (clientv3, WithRequireLeader).
        created = {"create_request": dict(body)}
        request = _request("/watch", token, created, {"Grpc-Metadata-hasleader": "true"})
        session = self._open_session(endpoint)
        return Stream(endpoint, session, session.stream(request, silence))

    def _open_session(self, endpoint: str) -> Session:
        check_files(self._settings)

        def refusal(_request: HttpRequest, status: int, data: bytes) -> SourceError:
            return error_of(endpoint, data, status)

        return Session(endpoint, endpoint, make_context(self._settings), self._received, refusal)


def _request(path: str, token: str, body: Body, headers: Mapping[str, str] = {}) -> HttpRequest:
    user = {"Authorization": token} if token else {}
    return HttpRequest(
        "POST", f"{_PREFIX}{path}", None, {**user, **headers}, json.dumps(body).encode()
    )


# -- errors


def error_of(endpoint: str, answer: bytes | bytearray, status: int) -> SourceError:
    """The error that an endpoint's answer describes. status: HTTP's."""
    try:
        body = json.loads(answer)
        code, message = int(body["code"]), str(body.get("message") or body["error"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        page = ascii(b" ".join(answer.split())[:_PAGE_MAX].decode(errors="replace"))
        return Unreachable(f"{endpoint}: is no etcd: HTTP {status}, {page}")
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
