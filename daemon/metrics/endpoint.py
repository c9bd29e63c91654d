"""The HTTP endpoint: /metrics, /healthz and /readyz, for a bounded number of clients at a time."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from itertools import accumulate
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from daemon.cni_server.call_counters import BOUNDS as CALL_BOUNDS
from daemon.liveness.watchdog import WatchedLoop, unwatched
from daemon.log import Log
from daemon.metrics import families as f
from daemon.metrics.collector import Labels, Values
from daemon.metrics.families import FAMILIES, Family
from daemon.model import Histogram
from daemon.routing.counters import BOUNDS as RECONCILE_BOUNDS
from daemon.routing.counters import Counts

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

HANDLERS_MAX = 16
"""Clients served at a time; one more takes the place of the client connected longest."""
IO_SECONDS = 5.0
"""Seconds to wait for the next bytes of a request, and for a response to be taken."""
REQUEST_MAX = 128 << 10
"""Bytes that are read of a request; http.client would keep 6 MB of headers, and parse them."""
RETRY = 5.0
"""Seconds between attempts to listen at an address that is in use, or not there yet."""
_STOP_SECONDS = 10.0
_PLAIN = "text/plain; charset=utf-8"
_BOUNDS = {f.CALL_SECONDS: CALL_BOUNDS, f.RECONCILE_SECONDS: RECONCILE_BOUNDS}


class Response(NamedTuple):
    """A response to a GET."""

    status: int
    body: bytes
    content_type: str = _PLAIN


Answer = Callable[[str, str], Response]
"""Answers a GET of a path, with the request's Accept header."""


class Exposition:
    """Renders values in a format of Prometheus', together with the process' own (process_*)."""

    def __init__(self, read: Callable[[], Values]) -> None:
        self._read = read
        self._registry: CollectorRegistry | None = None
        self._lock = threading.Lock()

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body, in the format that an Accept header asks for."""
        from prometheus_client.exposition import choose_encoder

        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # the header has a version that is no number
            encode, content_type = choose_encoder("")
        with self._lock:  # one scrape at a time reads the store and the kernel
            return content_type, encode(self._open())

    def collect(self) -> Iterator[Metric]:
        """All families that have values, in their order; the registry calls it."""
        values = self._read()
        return (as_metric(family, values[family]) for family in FAMILIES if family in values)

    def _open(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, ProcessCollector

        if self._registry is None:
            # The library's default registry would add Python's garbage collector.
            registry = CollectorRegistry(auto_describe=False)
            registry.register(self)
            ProcessCollector(registry=registry)
            self._registry = registry
        return self._registry


def as_metric(family: Family, values: dict[Labels, float | Histogram]) -> Metric:
    """A family with its values as prometheus_client has them."""
    from prometheus_client import core

    make = getattr(core, f"{family.kind.capitalize()}MetricFamily")
    metric: Any = make(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        if isinstance(value, Histogram):
            metric.add_metric(labels, _buckets(family, value), value.seconds)
        else:
            metric.add_metric(labels, value)
    return cast("Metric", metric)


def _buckets(family: Family, histogram: Histogram) -> list[tuple[str, int]]:
    bounds = (*map(str, _BOUNDS[family]), "+Inf")
    return list(zip(bounds, accumulate(histogram.buckets), strict=True))


class Pages:
    """The pages of the endpoint. describe_stall: of the daemon's watchdog."""

    def __init__(
        self, exposition: Exposition, counts: Counts, describe_stall: Callable[[], str]
    ) -> None:
        self._exposition, self._counts = exposition, counts
        self._describe_stall = describe_stall

    def __call__(self, path: str, accept: str) -> Response:
        """The response to a GET of a path."""
        if path == "/metrics":
            content_type, body = self._exposition.render(accept)
            return Response(200, body, content_type)
        if path == "/healthz":
            return check_alive(self._describe_stall())
        if path == "/readyz":
            return check_ready(self._counts)
        return _line(404, "not found: the paths are /metrics, /healthz and /readyz")


def check_alive(stall: str) -> Response:
    """200 while all loops of the daemon make progress, else 503. stall: which ones do not."""
    return _line(503, stall) if stall else _line(200, "alive")


def check_ready(counts: Counts) -> Response:
    """200 while this node is ready for pods (the verb STATUS agrees), else 503 and the reason."""
    seen = counts.seen
    if seen is None:
        return _line(503, "podwired has just started")
    if seen.status.fault:
        return _line(503, f"this node is not ready: {seen.status.fault}")
    return _line(200, "ready")


def _line(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(errors="backslashreplace"))


class _Request(socket.SocketIO):
    """What a client sends, up to REQUEST_MAX; then it ends."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, "r")
        self._left = REQUEST_MAX

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there, as the base does."""
        count = super().readinto(memoryview(buffer)[: self._left]) if self._left else 0
        self._left -= count or 0
        return count


class _Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0)."""

    server: _Server
    timeout = IO_SECONDS
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def setup(self) -> None:
        """Bound what is read of the client."""
        super().setup()
        self.rfile.close()
        self.rfile = BufferedReader(_Request(self.connection))

    def do_GET(self) -> None:
        try:
            path = urlsplit(self.path).path or "/"  # through a proxy it is a whole URL
        except ValueError:
            self.send_error(400)
            return
        response = self.server.answer(path, self.headers.get("Accept", ""))
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_HEAD = do_GET  # noqa: N815 - the base looks it up by this name

    def version_string(self) -> str:
        """The Server header, without the version of Python."""
        return "podwired"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


class _Server(ThreadingMixIn, TCPServer):
    """A thread for each client, HANDLERS_MAX at most. Raises OSError where it cannot listen."""

    allow_reuse_address = True  # connections of the daemon before may still be in TIME-WAIT
    allow_reuse_port = False
    request_queue_size = 64
    daemon_threads, block_on_close = True, False
    timeout = 10.0  # of handle_request, which accepts one connection

    def __init__(self, host: str, port: int, answer: Answer, stopping: threading.Event) -> None:
        if host == "::" and not socket.has_dualstack_ipv6():
            host = ""  # all addresses of IPv4: the kernel has no IPv6
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answer, self._stopping = answer, stopping
        self._slots = threading.BoundedSemaphore(HANDLERS_MAX)
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, None] = {}
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # `[::]` is every address of the node, of IPv4 too, whatever net.ipv6.bindv6only says.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()
        except OSError:
            # Out of descriptors: the connection that waits would keep the loop busy.
            self._stopping.wait(1.0)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self._disconnect_oldest()
            self._slots.acquire()
        with self._lock:
            self._connections[request] = None
        super().process_request(request, client_address)

    def _disconnect_oldest(self) -> None:
        with self._lock, suppress(OSError):
            if self._connections:
                # Its thread, which waits for it, ends.
                next(iter(self._connections)).shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._lock:
            del self._connections[request]
        self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that resets its connection, for example, is not logged."""


class Endpoint:
    """Serves from `start` to `stop`.

    report: takes why the endpoint cannot listen, and an empty text once it does. loop: notes that
    it makes progress.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer: Answer,
        report: Callable[[str], None],
        log: Log,
        loop: WatchedLoop | None = None,
    ) -> None:
        self._host, self._port, self._log = host, port, log
        self._answer, self._report = answer, report
        self._loop = loop or unwatched("metrics")
        self._stopping, self._fault, self._error = threading.Event(), "", ""
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._lock, suppress(OSError):
            if self._server:
                self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes up the thread that accepts
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._loop.beat()
            try:
                server = _Server(self._host, self._port, self._get, self._stopping)
            except OSError as error:
                self._note(explain(self._host, self._port, error))
                self._stopping.wait(RETRY)
                continue
            self._note("")
            with server:
                with self._lock:
                    self._server = server
                while not self._stopping.is_set():
                    self._loop.beat()
                    server.handle_request()
        self._loop.end()

    def _note(self, fault: str) -> None:
        if fault == self._fault:
            return
        self._fault = fault
        if fault:
            self._log.error(fault)
        else:
            self._log.info("metrics are served", listen=format_address(self._host, self._port))
        self._report(fault)

    def _get(self, path: str, accept: str) -> Response:
        try:
            return self._answer(path, accept)
        except Exception as error:  # the cause is for the log, not for the client
            if repr(error) != self._error:
                self._error = repr(error)
                self._log.error(f"GET {path} failed: {error!r}")
            return _line(500, "internal error: podwired's log has the cause")


def format_address(host: str, port: int) -> str:
    """Host and port as `metrics.listen` has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explain(host: str, port: int, error: OSError) -> str:
    """Why the endpoint cannot listen there, and what to do."""
    what = f"metrics cannot be served at {format_address(host, port)}"
    if error.errno == errno.EADDRINUSE:
        return f"{what}: another process listens there; set metrics.listen"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}: no link of this node has that address"
    return f"{what}: {error.strerror or error}"
