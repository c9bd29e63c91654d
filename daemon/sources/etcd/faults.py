"""What can go wrong with an etcd, told apart by what helps; errors of its client made readable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from ssl import SSLCertVerificationError, SSLError

from daemon.sources.remote import SourceError

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


class Refused(SourceError):
    """An answer of etcd that says no for another reason; code: gRPC's."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def fault_of(endpoint: str, text: str, status: int = 0) -> SourceError:
    """What a body of an error means. endpoint: whose it is. status: HTTP's; 0 = not known."""
    try:
        body = json.loads(text)
        code, message = int(body["code"]), str(body.get("message") or body["error"])
    except (ValueError, TypeError, KeyError, AttributeError):
        words = " ".join(text.split())[:_PAGE_MAX]
        answer = f"HTTP {status}, {words!a}" if status else f"{words!a}"
        return Unreachable(f"{endpoint}: is no etcd: {answer}")
    told = f"{endpoint}: {message[:_TEXT_MAX].removeprefix('etcdserver: ')}"
    return _by_code(code, message, told)


def _by_code(code: int, message: str, told: str) -> SourceError:
    if (
        code == _UNAUTHENTICATED
        or "auth store is old" in message
        or "invalid auth token" in message
    ):
        return Unauthenticated(told)
    if code == _INVALID and "user name is empty" in message:
        return Denied(f"{told}: it wants a user: source.etcd needs username and passwordFile")
    if code == _DENIED or (code == _INVALID and "authentication failed" in message):
        return Denied(told)
    if code in (_UNAVAILABLE, _DEADLINE, _INTERNAL, _UNKNOWN):
        return Unreachable(told)
    return Refused(told, code)


def is_auth_off(error: Refused) -> bool:
    """Whether etcd gave no token because it wants none (rpctypes, ErrGRPCAuthNotEnabled)."""
    return error.code == _PRECONDITION and "authentication is not enabled" in str(error)


def root_of(error: BaseException) -> str:
    """What an error of the HTTP client comes from, without the chain's words and objects."""
    for reason in reversed([e for e in _chain(error) if isinstance(e, OSError)]):
        words = _words(reason)
        if words:
            return words
    last = list(_chain(error))[-1]
    return str(last)[:_TEXT_MAX] or type(last).__name__


def _words(error: OSError) -> str:
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
