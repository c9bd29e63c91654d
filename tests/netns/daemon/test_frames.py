"""Whatever comes to the daemon's socket: it answers good calls meanwhile, and keeps nothing."""

import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.cni_server import protocol
from tests.netns.daemon.conftest import SECONDS, Daemon
from tests.netns.daemon.frames import HEAD, VERSION, Link, exchange, head, reply, request
from tests.pytest_netns import Namespace

THREADS = 64
CONF = b'{"cniVersion": "1.0.0", "name": "n", "type": "podwire", "ipam": {"subnet": "10.9.0.0/24"}}'


def holds(daemon: Daemon) -> tuple[int, int]:
    """Numbers of its descriptors and threads."""
    return len(daemon.descriptors), daemon.threads


def wait_until_no_more(daemon: Daemon, before: tuple[int, int]) -> None:
    """Until it holds no more than before: threads that nobody needs end after a while."""
    until = time.monotonic() + SECONDS
    while any(now > then for now, then in zip(holds(daemon), before, strict=True)):
        assert time.monotonic() < until, f"it held {before}, now {holds(daemon)}"
        time.sleep(0.05)


@pytest.fixture
def watched(near_daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that must hold no more than before, and serve, when the test is over."""
    first = request(CONF, COMMAND="DEL", CONTAINERID="c", IFNAME="eth0")
    with ThreadPoolExecutor(6) as threads:  # every process has its store and its sockets open
        warm = threads.map(lambda _: exchange(near_daemon.path, first), range(24))
        assert {reply(answer)[0] for answer in warm} == {0}
    before = holds(near_daemon)
    yield near_daemon
    assert reply(exchange(near_daemon.path, VERSION))[0] == 0
    wait_until_no_more(near_daemon, before)
    assert "internal error" not in near_daemon.log


NO_REQUESTS = {
    "nothing": b"",
    "http": b"GET / HTTP/1.0\r\n\r\n",
    "huge": head(0xFFFFFFFF, 0),
    "long strings": head((1 << 20) + 1, 0),
    "long stdin": head(4, (4 << 20) + 2),
    "cut off": head(10, 10) + b"x",
    "unterminated": head(3, 0) + b"a\0b",
    "one word": head(2, 0) + b"a\0",
    "no word": head(0, 0),
    "foreign variable": head(11, 0) + b"a\0b\0LD_X=1\0",
}


def test_what_is_no_request_is_closed(watched: Daemon) -> None:
    answers = {what: exchange(watched.path, data) for what, data in NO_REQUESTS.items()}
    assert answers == dict.fromkeys(NO_REQUESTS, b"")


def test_who_only_looks_whether_it_answers_is_no_news(near_daemon: Daemon) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as looker:
            looker.connect(str(near_daemon.path))
    half = exchange(near_daemon.path, b"PWRQ")
    assert half == b""
    status, log = near_daemon.stop()
    assert status == 0
    assert log.count("could not be read") == 1, log


def test_another_protocol_version_is_answered(watched: Daemon) -> None:
    for version in (0, 1, 3, 0xFFFFFFFF):
        for rest in (b"", VERSION[HEAD.size :], b"\0" * 100_000):
            data = head(len(rest), 0, version=version) + rest
            status, body = reply(exchange(watched.path, data))
            assert (status, body["code"]) == (1, 11)
            assert "nothing was done" in body["details"]


def test_closed_at_every_byte(watched: Daemon) -> None:
    for length in range(len(VERSION)):
        with Link(watched.path) as link:
            link.send(VERSION[:length], [0])


def test_sent_byte_by_byte(watched: Daemon) -> None:
    with Link(watched.path) as link:
        for byte in VERSION:
            link.send(bytes([byte]))
        assert reply(link.answer())[0] == 0


def descriptors(stack: ExitStack, pod: Namespace) -> dict[str, list[int]]:
    """Descriptors that a caller may pass, by kind."""
    kinds = {
        "netns": str(pod.path),
        "mount namespace": "/proc/self/ns/mnt",
        "device": "/dev/null",
        "folder": "/",
        "file": __file__,
    }
    opened = {kind: [os.open(path, os.O_RDONLY)] for kind, path in kinds.items()}
    reader, writer = os.pipe()
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened |= {"pipe": [reader], "pipe's other end": [writer], "socket": [link.detach()]}
    for fds in opened.values():
        stack.callback(os.close, fds[0])
    netns = opened["netns"]
    return opened | {"none": [], "two": netns * 2, "four": netns * 4, "many": netns * 200}


def test_descriptors_of_every_kind(watched: Daemon, pod: Namespace) -> None:
    env = {"CONTAINERID": "c", "IFNAME": "eth0", "NETNS": "/named/by/the/caller", "PATH": "/x"}
    answers: dict[str, object] = {}
    with ExitStack() as stack:
        for kind, fds in descriptors(stack, pod).items():
            for verb in ("ADD", "DEL"):
                data = exchange(watched.path, request(CONF, COMMAND=verb, **env), fds)
                answers[f"{verb} {kind}"] = reply(data)[1].get("code", 0) if data else "closed"
    # No namespace: ADD cannot be, while DEL needs none.
    wrong = {"ADD": 4, "DEL": 0}
    several = ("two", "four", "many")
    assert answers == {
        call: "closed" if kind in several else 0 if kind == "netns" else wrong[verb]
        for call, (verb, _, kind) in {c: c.partition(" ") for c in answers}.items()
    }
    assert [link["ifname"] for link in pod.ip("link show")] == ["lo"]


def test_tokens_of_every_kind(watched: Daemon, pod: Namespace) -> None:
    """Without the token no call is begun: its shim may have had it executed elsewhere."""
    env = {"CONTAINERID": "c", "IFNAME": "eth0", "NETNS": "/x", "PATH": "/x"}
    taken = os.eventfd(0, os.EFD_CLOEXEC)
    with ExitStack() as stack:
        stack.callback(os.close, taken)
        kinds = descriptors(stack, pod)
        netns = kinds["netns"]
        tokens = {kind: fds for kind, fds in kinds.items() if len(fds) == 1 and kind != "file"}
        tokens |= {"taken": [taken], "none": []}
        found = {
            kind: exchange(watched.path, request(CONF, COMMAND="ADD", **env), fd, token=False)
            for kind, fds in tokens.items()
            for fd in ([*fds, *netns] if fds else [],)
        }
    assert found == dict.fromkeys(tokens, b"")
    assert "its caller took it back" in watched.log
    assert [link["ifname"] for link in pod.ip("link show")] == ["lo"]


def test_descriptors_with_every_part(watched: Daemon) -> None:
    """Those that come later than the first byte are nobody's."""
    with Link(watched.path) as link:
        for start in range(0, len(VERSION), 5):
            link.send(VERSION[start : start + 5], [0] * 3 if start else [0])
        assert reply(link.answer())[0] == 0


def test_the_first_of_two_equal_variables_counts(watched: Daemon) -> None:
    """As in the shim, which opens the namespace that getenv(3) finds."""
    twice = b"podwire\0/x\0CNI_COMMAND=VERSION\0CNI_COMMAND=FROB\0"
    assert reply(exchange(watched.path, head(len(twice), 0) + twice))[0] == 0


def test_no_call_ends_a_worker(near_daemon: Daemon, tmp_path: Path) -> None:
    """Not even one that fails where no failure was foreseen."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    words = f"podwire\0{loop}\0CNI_COMMAND=VERSION\0".encode()
    before = near_daemon.threads
    for _ in range(THREADS + 1):
        status, body = reply(exchange(near_daemon.path, head(len(words), 0) + words))
        assert status == 0 or body["code"] == 199
    # More are started for calls that come while others wait, and end some time after that.
    assert near_daemon.threads >= before


mutations = st.lists(
    st.tuples(st.integers(0, len(VERSION) - 1), st.integers(0, 255)), min_size=1, max_size=6
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=mutations, extra=st.binary(max_size=40), fds=st.integers(0, 5))
def test_a_changed_request(
    near_daemon: Daemon, changes: list[tuple[int, int]], extra: bytes, fds: int
) -> None:
    data = bytearray(VERSION)
    for at, byte in changes:
        data[at] = byte
    answer = exchange(near_daemon.path, bytes(data) + extra, [0] * fds)
    if answer:
        status, body = reply(answer)
        assert status == (1 if "code" in body else 0)


def test_garbage_while_good_calls_go_on(watched: Daemon) -> None:
    rng = random.Random(7)

    def bad(seed: int) -> None:
        mine = random.Random(seed)
        with Link(watched.path) as link:
            if mine.random() < 0.5:
                link.send(VERSION[: mine.randrange(1, len(VERSION))], [0] * mine.randrange(4))
            else:
                link.send(mine.randbytes(mine.randrange(1, 5000)), [0] * mine.randrange(4))
            time.sleep(mine.random() / 20)

    with ThreadPoolExecutor(32) as threads:
        noise = [threads.submit(bad, rng.randrange(1 << 30)) for _ in range(600)]
        for _ in range(100):
            assert reply(exchange(watched.path, VERSION))[0] == 0
        for future in noise:
            future.result()


def test_slow_writers_leave_room(watched: Daemon) -> None:
    """As many as one process has threads but one: the last one serves, whatever the other does."""
    with ExitStack() as stack:
        links = [stack.enter_context(Link(watched.path)) for _ in range(THREADS - 1)]
        for link in links:
            link.send(VERSION[:30])
        for _ in range(20):
            assert reply(exchange(watched.path, VERSION))[0] == 0
        for link in links:
            link.send(VERSION[30:])
        assert [reply(link.answer())[0] for link in links] == [0] * len(links)


def test_a_request_that_trickles_in_is_given_up() -> None:
    """Each byte comes in time, and still the whole does not."""
    ours, theirs = socket.socketpair()

    def trickle() -> None:
        try:
            for byte in head(4, 1000) + b"a\0b\0" + b"x" * 1000:
                theirs.sendall(bytes([byte]))
                time.sleep(0.02)
        except ConnectionError:
            pass

    with theirs, ThreadPoolExecutor(1) as threads:
        with ours:
            writer = threads.submit(trickle)
            with pytest.raises(TimeoutError):
                protocol.receive(ours, 0.5)
        writer.result()
