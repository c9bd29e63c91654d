"""How this node and the API server prove to each other who they are: certificates and tokens."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from daemon.files import read_regular
from daemon.sources.remote import SourceError

_TOKEN_MAX = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the API is. The authority that vouches for it: of the system, where none is given.

    server: its URL. ca_data: in base64. insecure: nobody vouches for it.
    """

    server: str
    ca_file: str = ""
    ca_data: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """Who this node is: a token, a password, a certificate; empty what it has not.

    certificate_data, key_data: in base64.
    """

    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    certificate_file: str = ""
    certificate_data: str = ""
    key_file: str = ""
    key_data: str = field(default="", repr=False)

    @property
    def auth(self) -> httpx2.Auth | None:
        """What is sent with each request; None where a certificate or nothing is sent."""
        if self.token_file:
            return BearerAuth(_TokenFile(Path(self.token_file)).get)
        if self.token:
            return BearerAuth(lambda _refused: self.token)
        if self.username and self.password:
            return httpx2.BasicAuth(self.username, self.password)
        return None


class BearerAuth(httpx2.Auth):
    """A token with each request, and once more where it is refused and there is another one.

    get: the token; it takes the one that was refused, empty at first. Raises SourceError.
    """

    def __init__(self, get: Callable[[str], str]) -> None:
        self._get = get

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """As httpx2 asks for it."""
        token = self._get("")
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code != httpx2.codes.UNAUTHORIZED:
            return
        if (fresh := self._get(token)) != token:
            request.headers["Authorization"] = f"Bearer {fresh}"
            yield request


class _TokenFile:
    """The token in a file, read again where it is refused: the kubelet renews it."""

    def __init__(self, path: Path) -> None:
        self._path, self._token = path, ""

    def get(self, refused: str) -> str:
        """The token."""
        if self._token in ("", refused):
            self._token = read_token(self._path)
        return self._token


def read_token(path: Path) -> str:
    """The token in a file. Raises SourceError."""
    try:
        return check_token(read_regular(path, _TOKEN_MAX).decode())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SourceError(
            f"source.kubernetes: the token file {path} cannot be read: {why}"
        ) from None


def check_token(text: str) -> str:
    """A token, without white space around it, as client-go takes it.

    Raises SourceError where it cannot be sent.
    """
    token = text.strip()
    if not (token.isascii() and token.isprintable()):
        raise SourceError("source.kubernetes: the user's token is no single line of ASCII")
    return token


def make_context(cluster: Cluster, user: User) -> ssl.SSLContext:
    """Who may vouch for the API server, and this node's certificate. Raises SourceError."""
    try:
        if cluster.ca_file or cluster.ca_data:
            with _file_of(cluster.ca_file, cluster.ca_data) as authority:
                context = ssl.create_default_context(cafile=authority)
        else:
            context = httpx2.create_ssl_context(verify=not cluster.insecure, trust_env=False)
        if user.certificate_file or user.certificate_data:
            with (
                _file_of(user.certificate_file, user.certificate_data) as certificate,
                _file_of(user.key_file, user.key_data) as key,
            ):
                context.load_cert_chain(certificate, key or None)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise SourceError(f"source.kubernetes: its certificates: {error}") from error
    return context


@contextmanager
def _file_of(path: str, data: str) -> Iterator[str]:
    """A file with this data, which is on no disk; without data the file that is named."""
    if not data:
        yield path
        return
    with os.fdopen(os.memfd_create("podwire-credentials"), "wb", 0) as file:
        file.write(base64.b64decode(data))
        yield f"/proc/self/fd/{file.fileno()}"
