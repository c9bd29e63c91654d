"""The daemon answers exactly as the standalone path does, and nothing is lost when it ends."""

import json
import shutil
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemon.conftest import SOCKET, Daemon, StartDaemon
from tests.netns.daemon.networks import CONF, MakePod
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import CniResult, Node


def answers(node: Node, pod: Namespace, program: Path) -> list[tuple[str, int, str]]:
    """What a sequence of calls answers, with the pod's path made neutral."""
    seen: list[tuple[str, int, str]] = []

    def call(verb: str, conf: dict[str, Any] | bytes = CONF, **keys: Any) -> CniResult:
        answer = node.cni(verb, program, conf, **{"netns": pod.path, **keys})
        seen.append((verb, answer.code, answer.stdout.replace(str(pod.path), "POD")))
        return answer

    call("VERSION")
    call("STATUS")
    result = call("ADD").json
    call("CHECK", {**CONF, "prevResult": result})
    call("ADD")
    pod.run(["ip", "route", "del", "default"])
    call("CHECK", {**CONF, "prevResult": result})
    call("CHECK")
    call("DEL", {**CONF, "prevResult": result})
    call("DEL")
    call("GC", {**CONF, "cni.dev/valid-attachments": []})
    call("ADD", {**CONF, "cniVersion": "0.2.0"})
    call("DEL", {**CONF, "cniVersion": "0.2.0"})
    call("ADD", netns="/run/netns/no-such")
    call("ADD", netns="/etc/passwd")
    call("ADD", container_id="-")
    call("ADD", ifname="a/b")
    call("ADD", args="K8S_POD_NAME=a;Nonsense=1")
    call("FROB")
    call("ADD", b"")
    call("ADD", b"\xff")
    call("ADD", {**CONF, "cniVersion": "9.0.0"})
    call("ADD", {**CONF, "mtu": "x"})
    return seen


def test_the_same_bytes_on_both_paths(
    make_node: Callable[[], Node], make_pod: MakePod, start_daemon: StartDaemon, podwire_bin: Path
) -> None:
    alone, served = make_node(), make_node()
    daemon = start_daemon(served)
    program = podwire_bin / "podwire"
    assert answers(served, make_pod(), program) == answers(alone, make_pod(), program)
    status, log = daemon.stop()
    assert status == 0
    assert log.count("ADD done") == 2  # the calls did go through the daemon


def test_root_alone_can_reach_it(daemon: Daemon, node: Node) -> None:
    modes = node.run(["stat", "-c", "%a %u", SOCKET.parent, SOCKET]).stdout
    assert modes == "700 0\n600 0\n"
    script = f"import socket; socket.socket(socket.AF_UNIX).connect({str(SOCKET)!r})"
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", script]
    assert "PermissionError" in node.run(nobody, check=False).stderr


def exchange(node: Node, data: bytes) -> bytes:
    """What the daemon answers to raw bytes; empty where it just closes."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(15);"
        f"s.connect({str(SOCKET)!r}); s.sendall(bytes.fromhex(sys.argv[1]));"
        "s.shutdown(socket.SHUT_WR); sys.stdout.write(s.recv(1 << 16).hex())"
    )
    return bytes.fromhex(node.run(["/usr/bin/python3", "-c", script, data.hex()]).stdout)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        struct.pack("=4sIIII", b"PWRQ", 1, 0xFFFFFFFF, 0, 0),
        struct.pack("=4sIIII", b"PWRQ", 1, 10, 10, 0) + b"x",
        struct.pack("=4sIIII", b"PWRQ", 1, 3, 0, 0) + b"a\0b",
        struct.pack("=4sIIII", b"PWRQ", 1, 11, 0, 0) + b"a\0b\0LD_X=1\0",
    ],
    ids=["nothing", "http", "huge", "cut off", "unterminated", "foreign variable"],
)
def test_what_is_no_request_is_closed(daemon: Daemon, node: Node, data: bytes) -> None:
    assert exchange(node, data) == b""
    assert exchange(node, struct.pack("=4sIIII", b"PWRQ", 1, 4, 0, 0) + b"a\0b\0")[:4] == b"PWRP"


def test_another_protocol_version_is_answered(daemon: Daemon, node: Node) -> None:
    reply = exchange(node, struct.pack("=4sIIII", b"PWRQ", 2, 0, 0, 0))
    magic, version, status, out, _err = struct.unpack_from("=4sIIII", reply)
    assert (magic, version, status) == (b"PWRP", 1, 1)
    assert json.loads(reply[20 : 20 + out])["code"] == 11


def test_a_daemon_of_another_version_is_told(
    node: Node, pod: Namespace, podwire_bin: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    reply = struct.pack("=4sIIII", b"PWRP", 7, 0, 0, 0)
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as threads:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(20)
                connection.sendall(reply)  # and closes with most of the request unread

        threads.submit(serve)
        env = {"PODWIRE_SOCKET": str(path)}
        answer = node.cni("DEL", podwire_bin / "podwire", CONF, netns=pod.path, env=env)
    assert answer.code == 1
    assert answer.json["code"] == 11
    assert "another protocol" in answer.json["msg"]


@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("DEL", 11), ("STATUS", 50)])
def test_a_shim_without_daemon_or_python(
    node: Node, pod: Namespace, podwire_bin: Path, tmp_path: Path, verb: str, code: int
) -> None:
    alone = shutil.copy((podwire_bin / "podwire").resolve(), tmp_path / "podwire")
    answer = node.cni(verb, Path(alone), CONF, netns=pod.path)
    assert answer.code == 1
    assert answer.json["code"] == code
    assert "daemon does not run" in answer.json["msg"]


def test_calls_leave_no_descriptor(
    daemon: Daemon, node: Node, pod: Namespace, podwire_bin: Path
) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))

    program = podwire_bin / "podwire"

    def rounds(count: int) -> None:
        for _ in range(count):
            assert node.cni("ADD", program, CONF, netns=pod.path).code == 0
            assert node.cni("DEL", program, CONF, netns=pod.path).code == 0
            assert node.cni("ADD", program, CONF, netns="/etc/passwd").code == 1

    rounds(10)
    before = descriptors()
    rounds(30)
    assert descriptors() == before
