"""The HTTP endpoint, against everything that may connect to it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.log import Log
from daemon.metrics import connection, endpoint
from daemon.metrics.endpoint import CONNECTIONS_MAX, Endpoint, explain, open_listener
from daemon.metrics.http import PLAIN, REQUEST_MAX, BadRequest, Request, Response, parse, render

DEADLINE = 60.0
LARGE = 16 << 20
"""More bytes than fit the buffers of any connection here."""


class Served:
    """An endpoint that answers with what it was asked."""

    def __init__(self, stack: ExitStack, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.faults: list[str] = []
        self.asked: list[Request] = []
        made = Endpoint(host, port, self._answer, self.faults.append, Log())
        stack.enter_context(made)
        wait(lambda: bool(self.faults) or _listens(host, port))

    def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        if request.path == "/fails":
            raise RuntimeError("no")
        if request.path == "/large":
            return Response(200, bytes(LARGE))
        return Response(200, f"{request.method} {request.path}\n".encode())

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), DEADLINE)

    def get(self, path: str = "/", method: str = "GET") -> tuple[int, bytes]:
        client = HTTPConnection(self.host, self.port, timeout=DEADLINE)
        client.request(method, path)
        answer = client.getresponse()
        found = answer.status, answer.read()
        client.close()
        return found


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


def free_port(host: str) -> int:
    with open_listener(host, 0) as made:
        return int(made.getsockname()[1])


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
    return Served(stack, request.param, free_port(request.param))


def test_get_and_head_are_answered(served: Served) -> None:
    assert served.get("/metrics?a=b") == (200, b"GET /metrics\n")
    client = HTTPConnection(served.host, served.port, timeout=DEADLINE)
    client.request("HEAD", "/metrics", headers={"accept": " text/plain;q=1 "})
    answer = client.getresponse()
    assert (answer.status, answer.headers["content-length"]) == (200, str(len("HEAD /metrics\n")))
    assert answer.headers["content-type"] == PLAIN
    assert answer.read() == b""
    client.close()
    assert served.asked[-1] == Request("HEAD", "/metrics", "text/plain;q=1")
    assert served.faults == []


def test_a_request_may_come_in_pieces(served: Served) -> None:
    with served.connect() as sock:
        for byte in b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n":
            sock.sendall(bytes((byte,)))
        assert read_all(sock).endswith(b"\r\n\r\nGET /slow\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"POST / HTTP/1.1\r\nContent-Length: 400000\r\n\r\n" + bytes(400_000), 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET http:// HTTP/1.1\r\n\r\n", 400),
        (b"GET ftp://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET ?x HTTP/1.1\r\n\r\n", 400),
        (b"GET * HTTP/1.1\n\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * REQUEST_MAX, 431),
        (b"G" * 100_000, 431),
    ],
)
def test_what_is_no_request_is_refused(served: Served, data: bytes, status: int) -> None:
    with served.connect() as sock:
        sock.sendall(data)
        assert read_all(sock).startswith(b"HTTP/1.1 %d " % status)
    assert served.asked == []
    assert served.get()[0] == 200


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
        assert read_all(sock).endswith(f"\r\n\r\nGET {path}\n".encode())
    assert served.asked == [Request("GET", path, "text/plain")]


def test_an_answer_that_fails_is_told_and_the_next_one_is_given(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    assert served.get("/fails")[0] == 500
    assert served.get("/fails")[0] == 500
    assert served.get("/") == (200, b"GET /\n")
    told = [line for line in capfd.readouterr().err.splitlines() if "could not be answered" in line]
    assert len(told) == 1
    assert "RuntimeError('no')" in told[0]


def test_many_that_say_nothing_do_not_keep_one_out_that_asks(
    served: Served, stack: ExitStack
) -> None:
    silent = [stack.enter_context(served.connect()) for _ in range(3 * CONNECTIONS_MAX)]
    half = [stack.enter_context(served.connect()) for _ in range(CONNECTIONS_MAX)]
    for sock in half:
        sock.sendall(b"GET / HTTP/1.1\r\n")
    assert served.get("/x") == (200, b"GET /x\n")
    assert read_all(silent[0]) == b""  # its place was taken
    connections = [n for n in os.listdir("/proc/self/fd") if _is_open_socket(int(n))]
    assert len(connections) < 4 * CONNECTIONS_MAX + CONNECTIONS_MAX + 20


def _is_open_socket(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


def test_who_says_nothing_is_sent_away(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.2)
    served = Served(stack, "127.0.0.1", free_port("127.0.0.1"))
    with served.connect() as silent, served.connect() as slow:
        slow.sendall(b"GET / HTT")
        assert read_all(silent) == read_all(slow) == b""
    assert served.asked == []


def test_who_does_not_read_is_sent_away_and_others_are_served_meanwhile(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RESPONSE_SECONDS", 0.5)
    served = Served(stack, "127.0.0.1", free_port("127.0.0.1"))
    with served.connect() as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        wait(lambda: served.asked != [])
        assert served.get("/x") == (200, b"GET /x\n")
        time.sleep(1)  # longer than it may take
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert len(read_all(slow)) >= LARGE


def test_a_large_answer_arrives_whole(served: Served) -> None:
    status, body = served.get("/large")
    assert (status, len(body)) == (200, LARGE)


def test_who_resets_harms_nobody(served: Served) -> None:
    for data in (b"", b"GET / HTTP/1.1\r\n", b"GET /large HTTP/1.1\r\n\r\n"):
        sock = served.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(data)
        sock.close()
    assert served.get("/x") == (200, b"GET /x\n")


def test_an_address_that_is_taken_is_told_and_had_when_it_is_free(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "RETRY", 0.05)
    taken = stack.enter_context(open_listener("127.0.0.1", 0))
    port = taken.getsockname()[1]
    served = Served(stack, "127.0.0.1", port)
    wait(lambda: len(served.faults) == 1)
    assert f"127.0.0.1:{port}: something else listens there" in served.faults[0]
    taken.close()
    wait(lambda: len(served.faults) == 2)
    assert served.faults[1] == ""
    assert served.get("/x") == (200, b"GET /x\n")


def test_an_address_that_the_node_has_not_is_told(stack: ExitStack) -> None:
    faults: list[str] = []
    made = Endpoint("192.0.2.77", 9473, lambda _: Response(200, b""), faults.append, Log())
    stack.enter_context(made)
    wait(lambda: bool(faults))
    assert "192.0.2.77:9473: no link of this node has that address" in faults[0]


def test_ipv6_is_named_with_brackets() -> None:
    assert "at [fd00::1]:9473: " in explain("fd00::1", 9473, PermissionError(13, "denied"))


def parsed(data: bytes) -> Request | int | None:
    """The request, or the status that refuses it."""
    try:
        return parse(data)
    except BadRequest as error:
        return error.status


@given(st.binary(max_size=200), st.sampled_from([b"", b"GET /", b"GET / HTTP/1.1\r\n"]))
def test_any_bytes_are_a_request_incomplete_or_refused(data: bytes, before: bytes) -> None:
    for end in (b"", b"\r\n\r\n"):
        found = parsed(before + data + end)
        assert (found is None) == (b"\n\n" not in (before + data + end).replace(b"\r\n", b"\n"))
        if isinstance(found, Request):
            assert found.method in ("GET", "HEAD")
            assert found.path.startswith("/")
            assert found.path.isascii()
            assert "?" not in found.path
        else:
            assert found in (None, 400, 405)


@given(st.text(max_size=50), st.binary(max_size=50))
def test_no_header_can_be_smuggled_into_a_response(text: str, body: bytes) -> None:
    clean = text.replace("\r", "").replace("\n", "")
    head, _end, rest = render(Response(200, body, clean)).partition(b"\r\n\r\n")
    assert rest == body
    assert len(head.split(b"\r\n")) == 5
