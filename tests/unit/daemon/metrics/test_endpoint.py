"""The HTTP endpoint: its pages and formats, and any client that may connect to it."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from daemon.liveness import watchdog as watchdog_module
from daemon.liveness.watchdog import LIMIT, Watchdog
from daemon.log import Log
from daemon.metrics import endpoint
from daemon.metrics import families as f
from daemon.metrics.collector import Values
from daemon.metrics.endpoint import (
    HANDLERS_MAX,
    REQUEST_MAX,
    Endpoint,
    Exposition,
    Pages,
    Response,
    check_alive,
    check_ready,
    explain,
)
from daemon.model import Histogram
from daemon.routing.counters import Counts, Seen
from daemon.status import NodeStatus
from tests.unit.daemon.liveness.test_watchdog import Clock
from tests.unit.ports import free_port

DEADLINE = 60.0
LARGE = 16 << 20
"""Bytes of a response that no buffer of a connection holds."""
GOOD = NodeStatus("node-1", "vxlan", "static", peers=1)


class Served:
    """An endpoint that answers with the request."""

    def __init__(self, stack: ExitStack, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.faults: list[str] = []
        self.requests: list[tuple[str, str]] = []
        made = Endpoint(host, port, self._answer, self.faults.append, Log())
        stack.enter_context(made)
        wait(lambda: bool(self.faults) or _listens(host, port))

    def _answer(self, path: str, accept: str) -> Response:
        self.requests.append((path, accept))
        if path == "/fails":
            raise RuntimeError("no")
        if path == "/large":
            return Response(200, bytes(LARGE))
        return Response(200, f"{path}\n".encode())

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), DEADLINE)

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, bytes]:
        answer, body = self.request(path, method, **headers)
        return answer.status, body

    def request(self, path: str, method: str, **headers: str) -> tuple[HTTPResponse, bytes]:
        client = HTTPConnection(self.host, self.port, timeout=DEADLINE)
        try:
            client.request(method, path, headers=headers)
            answer = client.getresponse()
            return answer, answer.read()
        finally:
            client.close()


def wait(check: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < until, "did not become true"
        time.sleep(0.01)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def listen(host: str) -> socket.socket:
    """A socket that listens at a free port."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.bind((host, 0))
    made.listen()
    return made


def read_all(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(65536):
        found += data
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(params=["127.0.0.1", "::1"])
def served(request: pytest.FixtureRequest, stack: ExitStack) -> Served:
    return Served(stack, request.param, free_port(socket.SOCK_STREAM, request.param))


def test_get_and_head_are_answered(served: Served) -> None:
    assert served.get("/metrics?a=b") == (200, b"/metrics\n")
    answer, body = served.request("/metrics", "HEAD", accept="text/plain;q=1")
    assert (answer.status, body) == (200, b"")
    assert answer.headers["content-length"] == str(len("/metrics\n"))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["server"] == "podwired"
    assert served.requests[-1] == ("/metrics", "text/plain;q=1")
    assert served.faults == []


def test_a_wildcard_is_all_addresses_of_both_families(stack: ExitStack) -> None:
    served = Served(stack, "::", free_port(socket.SOCK_STREAM, "::"))
    for served.host in ("127.0.0.1", "::1"):
        assert served.get("/metrics") == (200, b"/metrics\n")


def test_a_request_may_come_in_pieces(served: Served) -> None:
    with served.connect() as sock:
        for byte in b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n":
            sock.sendall(bytes((byte,)))
        assert read_all(sock).endswith(b"\r\n\r\n/slow\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", 501),
        (b"DELETE / HTTP/1.1\r\n\r\n", 501),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\n\r\n", 400),
        (b"G" * 65537, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 65537, 431),
    ],
)
def test_an_invalid_request_is_refused(served: Served, data: bytes, status: int) -> None:
    with served.connect() as sock:
        sock.sendall(data)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.0 %d " % status)
    assert b"Content-Type: text/plain" in answer
    assert b"<" not in answer, "a line of text, as of every other path"
    assert served.requests == []
    assert served.get()[0] == 200


def test_no_more_is_read_of_a_request_than_one_needs(served: Served) -> None:
    """Some clients with megabytes of headers each took hundreds of megabytes of memory."""
    endless = b"GET /metrics HTTP/1.0\r\n" + 10 * (b"x: ".ljust(32766, b"x") + b"\r\n")
    with served.connect() as sock:
        sock.sendall(endless[:REQUEST_MAX])
        assert sock.recv(65536).startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://127.0.0.1:9473/metrics", "/metrics"),
        ("HTTP://[::1]:9473/healthz?a=/b", "/healthz"),
        ("https://node-1", "/"),
        ("http://node-1?a", "/"),
        ("/http://x/", "/http://x/"),
        ("/healthz/", "/healthz/"),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_how_a_request_may_be_written(served: Served, target: str, path: str, end: str) -> None:
    lines = (f"GET {target} HTTP/1.1", "Host: x", "Accept: text/plain", "", "")
    with served.connect() as sock:
        sock.sendall(end.join(lines).encode())
        assert read_all(sock).endswith(f"\r\n\r\n{path}\n".encode())
    assert served.requests == [(path, "text/plain")]


def test_an_error_is_logged_once_and_the_next_request_is_answered(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    assert served.get("/fails") == (500, b"internal error: podwired's log has the cause\n")
    assert served.get("/fails")[0] == 500
    assert served.get("/") == (200, b"/\n")
    lines = [line for line in capfd.readouterr().err.splitlines() if "/fails" in line]
    assert len(lines) == 1
    assert "GET /fails failed: RuntimeError('no')" in lines[0]


def test_silent_clients_do_not_keep_others_out(served: Served, stack: ExitStack) -> None:
    silent = [stack.enter_context(served.connect()) for _ in range(3 * HANDLERS_MAX)]
    half = [stack.enter_context(served.connect()) for _ in range(HANDLERS_MAX)]
    for sock in half:
        sock.sendall(b"GET / HTTP/1.1\r\n")
    assert served.get("/x") == (200, b"/x\n")
    assert read_all(silent[0]) == b""  # the next client took its place
    handlers = [t for t in threading.enumerate() if "process_request" in t.name]
    assert len(handlers) <= HANDLERS_MAX
    sockets = [fd for fd in os.listdir("/proc/self/fd") if _is_socket(int(fd))]
    assert len(sockets) < 4 * HANDLERS_MAX + HANDLERS_MAX + 20


def _is_socket(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


def test_a_silent_client_is_disconnected(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 1.0)
    served = Served(stack, "127.0.0.1", free_port(socket.SOCK_STREAM, "127.0.0.1"))
    with served.connect() as silent, served.connect() as slow:
        slow.sendall(b"GET / HTT")
        assert read_all(silent) == read_all(slow) == b""
    assert served.requests == []


def test_a_client_that_does_not_read_is_disconnected_and_delays_no_other(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.5)
    served = Served(stack, "127.0.0.1", free_port(socket.SOCK_STREAM, "127.0.0.1"))
    with served.connect() as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        wait(lambda: served.requests != [])
        assert served.get("/x") == (200, b"/x\n")
        wait(lambda: not any("process_request" in t.name for t in threading.enumerate()))
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert len(read_all(slow)) >= LARGE


def test_a_large_response_arrives_whole(served: Served) -> None:
    status, body = served.get("/large")
    assert (status, len(body)) == (200, LARGE)


def test_a_client_that_resets_its_connection_harms_nothing(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    for data in (b"", b"GET / HTTP/1.1\r\n", b"GET /large HTTP/1.1\r\n\r\n"):
        sock = served.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(data)
        sock.close()
    assert served.get("/x") == (200, b"/x\n")
    assert "Traceback" not in capfd.readouterr().err


def test_an_address_in_use_is_reported_and_served_once_it_is_free(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "RETRY", 0.05)
    taken = stack.enter_context(listen("127.0.0.1"))
    port = taken.getsockname()[1]
    served = Served(stack, "127.0.0.1", port)
    wait(lambda: len(served.faults) == 1)
    assert f"127.0.0.1:{port}: another process listens there" in served.faults[0]
    taken.close()
    wait(lambda: len(served.faults) == 2)
    assert served.faults[1] == ""
    wait(lambda: _listens("127.0.0.1", port))
    assert served.get("/x") == (200, b"/x\n")


def test_an_address_that_the_node_lacks_is_reported(stack: ExitStack) -> None:
    faults: list[str] = []
    made = Endpoint("192.0.2.77", 9473, lambda *_: Response(200, b""), faults.append, Log())
    stack.enter_context(made)
    wait(lambda: bool(faults))
    assert "192.0.2.77:9473: no link of this node has that address" in faults[0]


def test_it_ends_at_once_with_clients_connected() -> None:
    port = free_port(socket.SOCK_STREAM, "127.0.0.1")
    with ExitStack() as held, ExitStack() as inner:
        served = Served(inner, "127.0.0.1", port)
        client = held.enter_context(served.connect())
        client.sendall(b"GET")
        inner.close()
        assert not any(t.name == "metrics" for t in threading.enumerate())
        assert not _listens("127.0.0.1", port)


def test_ipv6_is_named_with_brackets() -> None:
    assert "at [fd00::1]:9473: " in explain("fd00::1", 9473, PermissionError(13, "denied"))


VALUES: Values = {
    f.INFO: {("1", "node-1", "vxlan", "static"): 1.0},
    f.CALL_SECONDS: {("ADD", "success"): Histogram((0, 2, 1, *[0] * 12), 0.25)},
    f.READY: {(): 1.0},
    f.ERRORS: {(): 3},
}
TEXT = "text/plain; version=0.0.4; charset=utf-8"
FORMATS = {
    "": TEXT,
    "text/html": TEXT,
    "application/openmetrics-text; version=1.0.0": "application/openmetrics-text; version=1.0.0",
    "application/openmetrics-text; version=x": "text/plain",
    "text/plain; version=\u00e9.1": "text/plain",
}


@pytest.mark.parametrize("accept", FORMATS)
def test_the_format_is_negotiated(accept: str) -> None:
    content_type, body = Exposition(lambda: VALUES).render(accept)
    assert content_type.startswith(FORMATS[accept])
    assert (b"# EOF" in body) == content_type.startswith("application/")
    assert b"podwire_ready 1.0\n" in body


@given(st.text(max_size=60))
def test_no_accept_header_breaks_a_scrape(accept: str) -> None:
    for before in ("", "text/plain;", "application/openmetrics-text;version="):
        _content_type, body = Exposition(dict).render(before + accept)
        assert b"process_" in body


def test_values_are_rendered_with_types_labels_and_buckets() -> None:
    _content_type, body = Exposition(lambda: VALUES).render("")
    found = {family.name: family for family in text_string_to_metric_families(body.decode())}
    own = {name: family for name, family in found.items() if name.startswith("podwire")}
    assert list(own) == [
        "podwire_info", "podwire_cni_call_duration_seconds", "podwire_ready",
        "podwire_reconcile_errors",
    ]  # fmt: skip
    seconds = own["podwire_cni_call_duration_seconds"]
    assert (seconds.type, seconds.documentation) == ("histogram", f.CALL_SECONDS.help)
    labels = {"verb": "ADD", "result": "success"}
    buckets = {s.labels["le"]: s.value for s in seconds.samples if "le" in s.labels}
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.005"], buckets["+Inf"]) == (0, 2, 3, 3)
    assert {s.name[-5:]: s.value for s in seconds.samples if s.labels == labels} == {
        "count": 3, "s_sum": 0.25,
    }  # fmt: skip
    [errors] = own["podwire_reconcile_errors"].samples
    assert (errors.name, errors.value) == ("podwire_reconcile_errors_total", 3)
    [info] = own["podwire_info"].samples
    assert info.labels == {
        "version": "1", "node": "node-1", "backend": "vxlan", "source": "static",
    }  # fmt: skip


def test_scrapes_read_one_after_the_other() -> None:
    reading: list[int] = []
    most = 0

    def read() -> Values:
        nonlocal most
        reading.append(1)
        most = max(most, len(reading))
        time.sleep(0.01)
        reading.pop()
        return VALUES

    exposition = Exposition(read)
    threads = [threading.Thread(target=exposition.render, args=("",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_pages() -> None:
    counts = Counts()
    counts.note_iteration(0.0, Seen(GOOD, None, None, None))
    stall: list[str] = []
    pages = Pages(Exposition(lambda: VALUES), counts, lambda: "".join(stall))
    assert [pages(path, "").status for path in ("/metrics", "/healthz", "/readyz")] == [200] * 3
    assert b"podwire_ready 1.0" in pages("/metrics", "").body
    for path in ("/", "/metrics/", "/healthz/", "/readyz/", "/healthz/../metrics"):
        assert pages(path, "").status == 404
    stall.append("no progress: probes")
    assert pages("/healthz", "").status == 503


def test_a_daemon_with_a_loop_that_is_stuck_is_not_alive() -> None:
    assert check_alive("") == Response(200, b"alive\n")
    late = check_alive("no progress: calls of process 2, probes")
    assert late == Response(503, b"no progress: calls of process 2, probes\n")


def test_a_node_is_ready_as_status_says() -> None:
    counts = Counts()
    assert check_ready(counts).status == 503
    counts.note_iteration(0.0, Seen(GOOD, None, None, None))
    assert check_ready(counts) == Response(200, b"ready\n")
    bad = NodeStatus("node-1", "vxlan", "static", fault="no\nlink \udcff")
    counts.note_iteration(0.0, Seen(bad, None, None, None))
    answer = check_ready(counts)
    assert (answer.status, answer.body) == (503, b"this node is not ready: no\nlink \\udcff\n")


def test_an_endpoint_that_hangs_is_noticed(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """When no client is served any more; one without clients does not hang."""
    clock, release, hanging = Clock(), threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(watchdog_module, "time", clock)
    monkeypatch.setattr(endpoint._Server, "timeout", 0.01)
    watchdog, port = Watchdog(Log(), {}), free_port(socket.SOCK_STREAM, "127.0.0.1")

    def answer(path: str, accept: str) -> Response:
        hanging.release()
        release.wait(DEADLINE)
        return Response(200, b"")

    loop = watchdog.add("metrics")
    stack.enter_context(Endpoint("127.0.0.1", port, answer, lambda _: None, Log(), loop))
    stack.callback(release.set)
    wait(lambda: _listens("127.0.0.1", port))

    def is_named() -> bool:
        watchdog.check()
        return "no progress: metrics;" in capfd.readouterr().err

    clock.now += LIMIT + 1
    wait(lambda: not is_named())
    for _ in range(HANDLERS_MAX + 1):
        client = socket.create_connection(("127.0.0.1", port), DEADLINE)
        stack.callback(client.close)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    for _ in range(HANDLERS_MAX):
        assert hanging.acquire(timeout=DEADLINE)

    def hangs() -> bool:
        clock.now += LIMIT + 1
        return is_named()

    wait(hangs)
