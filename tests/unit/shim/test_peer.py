"""The shim under AddressSanitizer: whatever its peer answers, it never reports a false success."""

import json
import os
import select
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.shim.conftest import (
    HEAD,
    PROTOCOL,
    Answer,
    Peer,
    read_request,
    replying,
    run,
    sending,
)

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
STDOUT_MAX, STDERR_MAX = 16 << 20, 1 << 20
WHOLE = HEAD.pack(b"PWRP", PROTOCOL, 0, 5, 3) + b"hello" + b"err"


def assert_error_11(done: "subprocess.CompletedProcess[bytes]") -> None:
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


def assert_not_begun(done: "subprocess.CompletedProcess[bytes]", verb: str) -> None:
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["code"] == (50 if verb == "STATUS" else 11)
    assert (answer["msg"], "nothing was done" in answer["details"]) == (
        "podwire's daemon has not begun this call",
        True,
    )


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
likely = st.builds(HEAD.pack, st.just(b"PWRP"), st.just(PROTOCOL), words, words, words)
garbage = st.binary(max_size=60) | st.builds(bytes.__add__, heads | likely, st.binary(max_size=60))


def expected(data: bytes) -> tuple[int, bytes] | None:
    """Exit status and stdout that a reply stands for (PROTOCOL.md); None where it is none."""
    if len(data) < HEAD.size:
        return None
    magic, version, status, out, err = HEAD.unpack_from(data)
    if (
        (magic, version) != (b"PWRP", PROTOCOL)
        or status > 255
        or out > STDOUT_MAX
        or err > STDERR_MAX
    ):
        return None
    body = data[HEAD.size :]
    return (status, body[:out]) if len(body) >= out else None


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=garbage, verb=st.sampled_from(VERBS))
@example(data=HEAD.pack(b"PWRP", PROTOCOL, 256, 0, 0), verb="DEL")
@example(data=HEAD.pack(b"PWRP", PROTOCOL, 0, STDOUT_MAX + 1, 0), verb="ADD")
@example(data=HEAD.pack(b"PWRP", 1, 0, 0, 0), verb="DEL")
@example(data=HEAD.pack(b"PWRP", PROTOCOL, 0, 0, STDERR_MAX + 1), verb="DEL")
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
def test_a_peer_that_goes_away_before_it_begins(
    shim: Path, peer: Peer, verb: str, taken: int
) -> None:
    """Having read that many bytes, but not the token: nothing was done, and that is said."""

    def answer(connection: socket.socket) -> None:
        left = taken
        while left > 0:
            left -= len(connection.recv(left))

    peer.answer = answer
    done = run(shim, peer.path, b"x" * 300_000, CNI_COMMAND=verb)
    assert_not_begun(done, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_peer_that_goes_away_after_it_began(shim: Path, peer: Peer, verb: str) -> None:
    """The call may have been carried out, and nobody knows."""
    peer.answer = lambda connection: read_request(connection) and None
    done = run(shim, peer.path, b"x" * 300_000, CNI_COMMAND=verb)
    assert_error_11(done)
    assert "did not answer" in json.loads(done.stdout)["msg"]


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
def test_the_time_for_a_reply_ends(impatient_shim: Path, peer: Peer, answer: Answer) -> None:
    peer.answer = answer
    assert_error_11(run(impatient_shim, peer.path, CNI_COMMAND="DEL"))


PYTHON = """\
#!/bin/bash
exec >"$PODWIRE_SOCKET.executed"
cat
"""


def beside_python(shim: Path, folder: Path) -> Path:
    """The shim beside a Python that notes its execution, and what was on its stdin."""
    program = folder / "podwire"
    shutil.copy(shim, program)
    (folder / "python3").write_text(PYTHON)
    (folder / "python3").chmod(0o755)
    return program


def hung(connection: socket.socket) -> None:
    connection.recv(1)
    select.select([connection], [], [], 30)
    while connection.recv(1 << 16):  # until the shim is gone
        pass


@pytest.mark.parametrize("size", [2, 1 << 20])
@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_a_call_that_is_not_begun_is_taken_back(
    hasty_shim: Path, peer: Peer, tmp_path: Path, verb: str, size: int
) -> None:
    """Also one that is larger than the socket takes unread."""
    stdin = os.urandom(size)
    peer.answer = hung
    assert_not_begun(run(hasty_shim, peer.path, stdin, CNI_COMMAND=verb), verb)
    program = beside_python(hasty_shim, tmp_path)
    assert run(program, peer.path, stdin, CNI_COMMAND=verb).returncode == 0
    executed = Path(f"{peer.path}.executed")
    assert executed.read_bytes() == stdin
    executed.unlink()


def test_a_call_that_was_begun_is_not_taken_back(
    impatient_shim: Path, peer: Peer, tmp_path: Path
) -> None:
    peer.answer = silent
    assert_error_11(run(beside_python(impatient_shim, tmp_path), peer.path))
    assert not Path(f"{peer.path}.executed").exists()


def test_a_call_that_is_begun_and_taken_back_at_once_is_executed_once(
    hasty_shim: Path, tmp_path: Path
) -> None:
    """A daemon that wakes up about when the shim stops waiting."""
    program, calls = beside_python(hasty_shim, tmp_path), 24

    def call(number: int) -> tuple[bool, bool]:
        """Whether the peer has the call, whether Python was executed."""
        mine: list[bool] = []

        def answer(connection: socket.socket) -> None:
            time.sleep(0.98 + number * 0.002)
            _head, descriptors, _flags, _address = socket.recv_fds(connection, 1, 2)
            try:
                mine.append(os.read(descriptors[0], 8) != b"")
            except BlockingIOError:
                mine.append(False)
            os.close(descriptors[0])

        folder = tmp_path / str(number)
        folder.mkdir()
        peer = Peer(folder)
        peer.answer = answer
        done = run(program, peer.path)
        peer.close()
        executed = Path(f"{peer.path}.executed").exists()
        assert (done.returncode == 0) is executed
        return mine == [True], executed

    with ThreadPoolExecutor(calls) as threads:
        outcomes = list(threads.map(call, range(calls)))
    assert [began != executed for began, executed in outcomes] == [True] * calls


@pytest.mark.parametrize("size", [1, 65_536, 65_537, STDOUT_MAX])
def test_a_reply_up_to_the_limit(shim: Path, peer: Peer, size: int) -> None:
    err = b"e" * min(size, STDERR_MAX)
    peer.answer = replying(b"o" * size, 3, err)
    done = run(shim, peer.path)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, size, err)
