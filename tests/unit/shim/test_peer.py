"""The shim under AddressSanitizer: whatever its peer answers, it never reports a false success."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.shim.conftest import HEAD, Answer, Peer, read_request, replying, run, sending

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")
STDOUT_MAX, STDERR_MAX = 16 << 20, 1 << 20
WHOLE = HEAD.pack(b"PWRP", 1, 0, 5, 3) + b"hello" + b"err"


def assert_error_11(done: "subprocess.CompletedProcess[bytes]") -> None:
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_reply_cut_off_at_every_byte(shim: Path, peer: Peer, length: int) -> None:
    peer.answer = sending(WHOLE[:length])
    done = run(shim, peer.path)
    if length < HEAD.size + 5:
        assert_error_11(done)
    else:  # the answer is there, the lines for the operator are not
        assert (done.returncode, done.stdout) == (0, b"hello")


words = st.sampled_from([0, 1, 2, 5, 255, 256, STDERR_MAX, STDERR_MAX + 1, STDOUT_MAX + 1])
numbers = words | st.integers(0, 2**32 - 1)
heads = st.builds(
    HEAD.pack, st.sampled_from([b"PWRP", b"PWRQ", b"\0\0\0\0"]), numbers, numbers, numbers, numbers
)
likely = st.builds(HEAD.pack, st.just(b"PWRP"), st.just(1), words, words, words)
garbage = st.binary(max_size=60) | st.builds(bytes.__add__, heads | likely, st.binary(max_size=60))


def expected(data: bytes) -> tuple[int, bytes] | None:
    """Exit status and stdout that a reply stands for (PROTOCOL.md); None where it is none."""
    if len(data) < HEAD.size:
        return None
    magic, version, status, out, err = HEAD.unpack_from(data)
    if (magic, version) != (b"PWRP", 1) or status > 255 or out > STDOUT_MAX or err > STDERR_MAX:
        return None
    body = data[HEAD.size :]
    return (status, body[:out]) if len(body) >= out else None


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=garbage, verb=st.sampled_from(VERBS))
@example(data=HEAD.pack(b"PWRP", 1, 256, 0, 0), verb="DEL")
@example(data=HEAD.pack(b"PWRP", 1, 0, STDOUT_MAX + 1, 0), verb="ADD")
@example(data=HEAD.pack(b"PWRP", 2, 0, 0, 0), verb="DEL")
@example(data=HEAD.pack(b"PWRP", 1, 0, 0, STDERR_MAX + 1), verb="DEL")
def test_garbage_is_error_11(shim: Path, peer: Peer, data: bytes, verb: str) -> None:
    peer.answer = sending(data)
    done = run(shim, peer.path, CNI_COMMAND=verb)
    reply = expected(data)
    if reply is None:
        assert_error_11(done)
    else:
        assert (done.returncode, done.stdout) == reply


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("taken", [0, 1, 19, 20, 21, 100, 70_000])
def test_a_peer_that_goes_away(shim: Path, peer: Peer, verb: str, taken: int) -> None:
    """Having read that many bytes: the call may have been carried out, and nobody knows."""

    def answer(connection: socket.socket) -> None:
        left = taken
        while left > 0:
            left -= len(connection.recv(left))

    peer.answer = answer
    assert_error_11(run(shim, peer.path, b"x" * 300_000, CNI_COMMAND=verb))


@pytest.mark.parametrize("verb", VERBS)
def test_a_refusal_before_the_request_was_read(shim: Path, peer: Peer, verb: str) -> None:
    peer.answer = lambda connection: connection.sendall(HEAD.pack(b"PWRP", 9, 0, 0, 0))
    done = run(shim, peer.path, b"x" * 300_000, CNI_COMMAND=verb)
    assert_error_11(done)


def trickle(connection: socket.socket) -> None:
    read_request(connection)
    for byte in WHOLE:
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def test_a_slow_reply_is_read_whole(shim: Path, peer: Peer) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        for byte in WHOLE:
            connection.sendall(bytes([byte]))
            time.sleep(0.005)

    peer.answer = answer
    assert run(shim, peer.path).stdout == b"hello"


def silent(connection: socket.socket) -> None:
    read_request(connection)
    connection.recv(1)  # until the shim is gone


@pytest.mark.parametrize("answer", [silent, trickle])
def test_the_time_for_a_reply_ends(hasty_shim: Path, peer: Peer, answer: Answer) -> None:
    peer.answer = answer
    assert_error_11(run(hasty_shim, peer.path, CNI_COMMAND="DEL"))


@pytest.mark.parametrize("size", [1, 65_536, 65_537, STDOUT_MAX])
def test_a_reply_up_to_the_limit(shim: Path, peer: Peer, size: int) -> None:
    err = b"e" * min(size, STDERR_MAX)
    peer.answer = replying(b"o" * size, 3, err)
    done = run(shim, peer.path)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, size, err)
