"""HTTP with TLS: requests in, answers and streams out, each request noted."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import os
import socket
import ssl
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.cluster.standin.access import Access, User, Wish
from tests.cluster.standin.resources import Place, find_place
from tests.cluster.standin.store import Store
from tests.cluster.standin.watching import Watching, read_selectors
from tests.cluster.standin.writing import Failure, Writer

_GZIP_FROM = 128 << 10
"""Shorter answers are not compressed (apiserver, defaultGzipThresholdBytes)."""
VERSION = "v1.36.2+standin"
_STUCK_SECONDS = 30.0
"""A reader that takes nothing for so long loses its watch."""


@dataclass(frozen=True, slots=True)
class Files:
    certificate: Path
    key: Path
    state: Path
    audit: Path


class Server(ThreadingHTTPServer):
    """The API."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self, address: tuple[str, int], files: Files, admin_token: str, bookmark_seconds: float
    ) -> None:
        self.store = Store(files.state)
        self.access = Access(self.store, admin_token)
        self.writer = Writer(self.store, self.access)
        self.bookmark_seconds = bookmark_seconds
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(files.certificate, files.key)
        self._audit = os.open(files.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        super().__init__(address, Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, on its own thread: a handshake holds up nobody else."""
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request.settimeout(_STUCK_SECONDS)
        with (
            contextlib.suppress(OSError),
            self._tls.wrap_socket(request, server_side=True) as secure,
        ):
            secure.settimeout(None)
            Handler(secure, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go at any time."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def note(self, entry: dict[str, Any]) -> None:
        """Write a request down, in the form of Kubernetes' audit log."""
        os.write(self._audit, json.dumps(entry).encode() + b"\n")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer's head and body in one piece
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server calls them so

    def log_message(self, *_: object) -> None:
        """Requests are noted elsewhere."""

    def _answer(self) -> None:
        self._came = datetime.datetime.now(datetime.UTC)
        parts = urlsplit(self.path)
        self._query = dict(parse_qsl(parts.query))
        self._user: User | None = None
        self._verb = self.command.lower()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._act(parts.path, body)
        except Failure as error:
            self._reply(error.code, json.dumps(error.body).encode())

    def _act(self, path: str, body: bytes) -> None:
        store = self.server.store
        if path in ("/readyz", "/livez"):
            self._reply(200, b"ok")
            return
        if path == "/version":
            self._identify()
            self._reply(200, _dump({"major": "1", "minor": "36", "gitVersion": VERSION}))
            return
        with store.lock:
            place = self._admit(path)
            if self._verb != "watch":
                code, data = self._do(place, body)
        if self._verb == "watch":
            self._stream(Watching(store, place, self._query, self.server.bookmark_seconds))
        else:
            self._reply(code, data)

    def _identify(self) -> User:
        """Whose request it is. Raises Failure."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        self._user = self.server.access.identify(token) if kind == "Bearer" else None
        if self._user is None:
            raise Failure(401, "Unauthorized", "Unauthorized")
        return self._user

    def _admit(self, path: str) -> Place:
        """What the path means, if the user may. Raises Failure."""
        user = self._identify()
        place = find_place(self.server.store, path)
        if place is None:
            message = "the server could not find the requested resource"
            raise Failure(404, "NotFound", message)
        self._verb = self._find_verb(place)
        resource = place.resource.plural + (f"/{place.part}" if place.part else "")
        wish = Wish(self._verb, place.resource.group, resource, place.space, place.name)
        if not self.server.access.allows(user, wish):
            raise Failure(403, "Forbidden", wish.denial(user))
        return place

    def _find_verb(self, place: Place) -> str:
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        if self.command == "DELETE" and not place.name:
            return "deletecollection"
        if self.command != "GET":
            return verbs[self.command]
        if place.name:
            return "get"
        return "watch" if self._query.get("watch") in ("1", "true") else "list"

    def _do(self, place: Place, body: bytes) -> tuple[int, bytes]:
        writer, query, user = self.server.writer, self._query, self._user
        assert user is not None
        if self._verb == "list":
            return 200, self._list(place)
        if self._verb == "create":
            return 201, _dump(writer.create(user, place, body, query))
        if self._verb == "update":
            return 200, _dump(writer.update(user, place, body, query))
        if self._verb == "patch":
            kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
            is_new = self.server.store.get(place.resource.key, (place.space, place.name)) is None
            made = writer.patch(user, place, body, query, kind)
            return 201 if is_new else 200, _dump(made)
        if self._verb == "deletecollection":
            return 200, _dump(writer.delete_all(place))
        if self._verb == "delete":
            return 200, _dump(writer.delete(user, place, body))
        return 200, _dump(writer.find(place))

    def _list(self, place: Place) -> bytes:
        store, resource = self.server.store, place.resource
        wanted = int(self._query.get("resourceVersion") or 0)
        if wanted > store.version:
            message = f"Timeout: Too large resource version: {wanted}, current: {store.version}"
            raise Failure(504, "Timeout", message)
        name, fits = read_selectors(self._query)
        found = [text for _, text in store.select(resource.key, place.space, name) if fits(text)]
        limit = int(self._query.get("limit") or 0) or len(found)
        texts, more = b",".join(found[:limit]), len(found) - limit
        head = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List"}
        rest = {"continue": "next", "remainingItemCount": more} if more > 0 else {"continue": ""}
        meta = {"metadata": {**rest, "resourceVersion": str(store.version)}}
        return b'%s,"items":[%s]}' % (json.dumps({**head, **meta}).encode()[:-1], texts)

    def _reply(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        if len(data) > _GZIP_FROM and "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self._note(code, "ResponseComplete")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, watching: Watching) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self._note(200, "ResponseStarted")
        self.end_headers()
        self.wfile.flush()
        self.connection.settimeout(_STUCK_SECONDS)
        try:
            watching.run(self._send_chunk)
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        self.connection.settimeout(None)

    def _send_chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def _note(self, code: int, stage: str) -> None:
        self.server.note(
            {
                "stage": stage,
                "verb": self._verb,
                "requestURI": self.path,
                "user": {"username": self._user.name if self._user else "system:anonymous"},
                "userAgent": self.headers.get("User-Agent", ""),
                "responseStatus": {"code": code},
                "requestReceivedTimestamp": self._came.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        )


def _dump(made: object) -> bytes:
    return json.dumps(made, separators=(",", ":")).encode()


def serve(
    address: tuple[str, int], files: Files, admin_token: str, bookmark_seconds: float
) -> Server:
    """A server that listens already."""
    threading.stack_size(1 << 20)
    return Server(address, files, admin_token, bookmark_seconds)
