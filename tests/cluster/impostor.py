"""An API server that answers whatever a test says: the one that was taken over, or is broken."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cluster.apiserver import network
from tests.cluster.authority import Authority
from tests.cluster.rest import Object

Answer = Callable[["Connection"], None]
GOOD = {"n2": ["10.244.2.0/24"], "n3": ["10.244.3.0/24"]}
"""The other nodes' prefixes, where it answers as a good server does."""


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer: its code, its type, its body, more headers."""

    code: int = 200
    body: bytes = b""
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def __call__(self, connection: Connection) -> None:
        connection.send_response(self.code)
        connection.send_header("Content-Type", self.kind)
        connection.send_header("Content-Length", str(len(self.body)))
        for name, value in self.headers:
            connection.send_header(name, value)
        connection.end_headers()
        connection.wfile.write(self.body)


def said(made: object, code: int = 200) -> Raw:
    """JSON."""
    return Raw(code, json.dumps(made).encode())


def listed(*items: object, version: str = "1000") -> Raw:
    """A list."""
    head = {"apiVersion": "podwire.dev/v1", "kind": "NodeNetworkList"}
    return said({**head, "metadata": {"resourceVersion": version}, "items": list(items)})


def event(kind: str, made: object) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": made}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Stream:
    """A watch that says these, and then nothing, or ends."""

    parts: tuple[bytes, ...] = ()
    ends: bool = False

    def __call__(self, connection: Connection) -> None:
        connection.send_response(200)
        connection.send_header("Content-Type", "application/json")
        connection.send_header("Transfer-Encoding", "chunked")
        connection.end_headers()
        for part in self.parts:
            connection.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        end = time.monotonic() + 60
        while not self.ends and connection.server.era == connection.era and time.monotonic() < end:
            time.sleep(0.05)
        connection.wfile.write(b"0\r\n\r\n")


class Impostor(ThreadingHTTPServer):
    """Serves from its making to `close`; `answers` may change at any time.

    version, node (the list of the own one), heartbeats (its watch), survey, list, watch, own,
    write: what of podwire's requests they are for.
    """

    daemon_threads = True

    def __init__(self, authority: Authority) -> None:
        self.answers: dict[str, Answer] = {}
        self.counts: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.era = 0
        """Counts changes of the answers: what is under way ends with the era that it began in."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(authority.certificate, authority.key)
        super().__init__(("127.0.0.1", 0), Connection)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.server_port

    def set(self, **answers: Answer) -> None:
        """Other answers than usual from now on; those that are under way end."""
        self.answers = answers
        self.era += 1

    def close(self) -> None:
        """End it."""
        self.era += 1
        self.shutdown()
        self.server_close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on its own thread."""
        with (
            contextlib.suppress(OSError),
            self._tls.wrap_socket(request, server_side=True) as secure,
        ):
            Connection(secure, client_address, self)


class Connection(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Impostor

    def do_GET(self) -> None:
        self.data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        what = self._what()
        self.server.counts[what] += 1
        self.server.tokens.add(self.headers.get("Authorization", ""))
        # Before the answer is chosen: an old answer may not outlast the change of the answers.
        self.era = self.server.era
        with contextlib.suppress(OSError):
            self.server.answers.get(what, _USUAL[what])(self)
            return
        self.close_connection = True

    do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server calls them so

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _what(self) -> str:
        answers = self.server.answers
        if self.path == "/version":
            return "version"
        if "/nodes" in self.path:
            return "heartbeats" if "watch=1" in self.path else "node"
        if self.command != "GET":
            return "write"
        if "/nodenetworks/" in self.path:
            return "own"
        if "limit=1" in self.path and ("survey" in answers or "list" not in answers):
            return "survey"
        return "watch" if "watch=1" in self.path or "watch=true" in self.path else "list"


def own_node(connection: Connection | None = None) -> Object:
    """The Node n1."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "uid": "u-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDRs": ["10.244.1.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }


def item(number: int, version: str = "900") -> Object:
    """The object of another node."""
    made = network(f"n{number}", [f"10.244.{number}.0/24"], [f"192.0.2.{number}"])
    made["metadata"] |= {"resourceVersion": version, "uid": f"u-{number}", "generation": 1}
    return made


def _written(connection: Connection) -> None:
    made = json.loads(connection.data or b"{}")
    made.setdefault("metadata", {})["resourceVersion"] = "901"
    said(made)(connection)


_USUAL: dict[str, Answer] = {
    "version": said({"gitVersion": "v1.36.2"}),
    "own": said({"kind": "Status", "code": 404}, 404),
    "survey": listed(item(2), item(3)),
    "node": listed(own_node()),
    "heartbeats": Stream(),
    "list": listed(item(2), item(3)),
    "watch": Stream(),
    "write": _written,
}
