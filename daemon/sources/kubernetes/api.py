"""The Kubernetes API over HTTP: a few requests, each bounded in bytes and in time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from daemon.config.schema import KubernetesSettings
from daemon.sources.http import BadResponse, HttpRequest, Session
from daemon.sources.kubernetes.credentials import make_context
from daemon.sources.kubernetes.kubeconfig import Access, read_access
from daemon.sources.kubernetes.listing import parse_list
from daemon.sources.kubernetes.objects import UnusableObject, find_position, metadata_of
from daemon.sources.remote import SourceError

VERSION_MIN = 1, 30
"""From here on ValidatingAdmissionPolicy is stable (KEP-3488)."""
FORBIDDEN, NOT_FOUND, GONE, TIMEOUT = 403, 404, 410, 504
RESTORED = "the Kubernetes API was restored from a backup, or went back in time: it is listed anew"
_NAME = "the Kubernetes API"
_MESSAGE_MAX = 200
Query = Mapping[str, str]
Hook = Callable[[dict[str, Any]], Any]


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


class Api:
    """One client's connections. received: called with the bytes of each response as they arrive."""

    server = ""
    """The server's URL."""

    def __init__(self, settings: KubernetesSettings, received: Callable[[int], None]) -> None:
        access = read_access(settings)
        self.server = access.cluster.server
        self.exposed = tuple(access.exposed_files())
        """Files with secrets that other users may read."""
        self._session = _open_session(access, received)

    def get(self, path: str, query: Query | None = None, hook: Hook | None = None) -> Any:
        """An object or a whole list. hook: as json.loads takes it. Raises SourceError."""
        return self._ask(HttpRequest("GET", path, query), hook)

    def find(self, path: str) -> Any:
        """An object; None where there is none. Raises SourceError."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    def get_list(
        self, path: str, query: Query, make: Callable[[Any], Any] = lambda thing: thing
    ) -> tuple[list[Any], str]:
        """The items of a list, and its resourceVersion. Raises SourceError.

        make: what takes an item's place; it is called while the list is parsed, so that thousands
        of objects are never in memory together. With no list all routes would be withdrawn.
        """

        def hook(thing: dict[str, Any]) -> Any:
            is_item = "metadata" in thing and "spec" in thing
            return make(_without_managers(thing)) if is_item else _without_managers(thing)

        root = self.get(path, query, hook)
        items = root.get("items") if isinstance(root, dict) else None
        position = find_position(root)
        if not isinstance(items, list) or not position:
            why = "has no items, or no resourceVersion"
            raise BadResponse(f"the Kubernetes API's list {path} {why}")
        return items, position

    def stream_list(
        self, path: str, query: Query, make: Callable[[Any], Any], silence: float
    ) -> tuple[list[Any], str]:
        """What `make` makes of the items of a list of any length, and its resourceVersion.

        silence: seconds without any byte after which the connection counts as dead. Raises
        SourceError.
        """
        with self._session.stream(HttpRequest("GET", path, query), silence) as parts:
            try:
                return parse_list(parts, make, _without_managers)
            except UnusableObject as error:
                raise BadResponse(f"the Kubernetes API's list {path} {error}") from None

    def count(self, path: str) -> tuple[int, str]:
        """How many items a list has, and its resourceVersion. Raises SourceError."""
        root = self.get(path, {"limit": "1"})
        more = metadata_of(root).get("remainingItemCount")
        return 1 + more if isinstance(more, int) else 1, find_position(root)

    def is_behind(self, path: str, position: str) -> bool:
        """Whether the API's resourceVersion is lower: it was restored from a backup.

        A watch from there would be accepted, and send nothing until the API has caught up
        (kubernetes issue 107457). Raises SourceError.
        """
        now = self.count(path)[1]
        return now.isdecimal() and position.isdecimal() and int(now) < int(position)

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
        return self._ask(HttpRequest("PATCH", path, query, headers, json.dumps(thing).encode()))

    def delete(self, path: str) -> None:
        """Delete an object. Raises SourceError."""
        self._ask(HttpRequest("DELETE", path))

    def _ask(self, request: HttpRequest, hook: Hook | None = None) -> Any:
        data = self._session.ask(request)
        try:
            return json.loads(data, object_hook=hook or _without_managers)
        except (ValueError, RecursionError) as error:
            raise BadResponse(f"{_NAME} answers {request} with no JSON") from error

    @contextmanager
    def watch(self, path: str, query: Query, silence: float) -> Iterator[Iterator[list[bytes]]]:
        """Lines as they arrive, until the API ends them. Raises SourceError.

        silence: seconds without any byte after which the connection counts as dead.
        """
        request = HttpRequest("GET", path, {**query, "watch": "1"})
        with self._session.stream(request, silence) as parts:
            yield self._session.lines_of(parts)

    def interrupt(self) -> None:
        """End all watches, from another thread. Never raises."""
        self._session.interrupt()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


def _refusal(request: HttpRequest, code: int, data: bytes) -> ApiError:
    try:
        status = json.loads(data)
    except (ValueError, RecursionError):
        status = None
    return failure_of(status, str(request), code)


def _without_managers(thing: dict[str, Any]) -> dict[str, Any]:
    # What the API server notes about writers is most of an object: it goes while it is parsed.
    thing.pop("managedFields", None)
    return thing


def cut(text: str) -> str:
    """Text of the API, shortened so that a message has room for our hint."""
    return text if len(text) <= _MESSAGE_MAX else f"{text[:_MESSAGE_MAX]}..."


def _open_session(access: Access, received: Callable[[int], None]) -> Session:
    place = urlsplit(access.cluster.server)
    return Session(
        f"{_NAME} at {place.scheme}://{place.netloc.rpartition('@')[2]}",
        access.cluster.server,
        make_context(access.cluster, access.user),
        received,
        _refusal,
        auth=access.auth,
        proxy=access.proxy,
        server_name=access.server_name,
        secrets=access.secrets,
    )
