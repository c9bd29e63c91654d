"""Calls through the zygote, as a test makes them."""

import ctypes
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.pytest_netns import CniResult, Node

T = TypeVar("T")

CLONE_FS = 0x200
CALL_TIMEOUT = 60.0
"""Seconds after which a call counts as hung."""

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Outcome(CniResult):
    """What a call answered. code: negative is the signal that ended it. events: see `At`."""

    events: int = 0


@dataclass(frozen=True, slots=True)
class At:
    """The instant at which a call stops or is killed; without one its instants are counted."""

    event: int = 0
    function: str = ""
    stop: bool = False


class Call:
    """One running call."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rw")

    def start(self, request: Mapping[str, Any]) -> None:
        self._say(json.dumps(request))

    def wait_stopped(self) -> None:
        """Return when the call has stopped at its instant; AssertionError if it ended instead."""
        answer = json.loads(self._stream.readline())
        assert "stopped" in answer, answer

    def resume(self) -> None:
        self._say("continue")

    def result(self) -> Outcome:
        """What the call answered at its end."""
        answer = json.loads(self._stream.readline())
        self._stream.close()
        self._connection.close()
        assert "stopped" not in answer, "the call stopped, nobody expected that"
        return Outcome(**answer)

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Zygote:
    """The warm interpreter of a test session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        program = Path(__file__).with_name("zygote.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(program), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the zygote did not come up"

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def start(
        self,
        node: Node,
        program: Path,
        env: Mapping[str, str],
        stdin: bytes,
        at: At | None = None,
    ) -> Call:
        """Start a call on a node."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(CALL_TIMEOUT)
        connection.connect(str(self._path))
        call = Call(connection)
        instant = None if at is None else {n: getattr(at, n) for n in ("event", "function", "stop")}
        call.start(
            {
                "net": str(node.ns.path),
                "mnt": str(mount_namespace(node)),
                "program": str(program),
                "env": {"PATH": SEARCH_PATH, **env},
                "stdin": stdin.decode("utf-8", "surrogateescape"),
                "at": instant,
            }
        )
        return call


def mount_namespace(node: Node) -> Path:
    """The file that names the node's mount namespace."""
    option = next(arg for arg in node.enter if arg.startswith("--mount="))
    return Path(option.removeprefix("--mount="))


def among_files(node: Node, work: Callable[[], T]) -> T:
    """Result of `work`, called by a thread that sees the node's mounts.

    A path below /proc/PID/root would not do: SQLite resolves that link, to the machine's files.
    """

    def enter_and_work() -> T:
        with mount_namespace(node).open() as file:
            # A thread that shares its root and working directory with others may not change them.
            if _libc.unshare(CLONE_FS) or _libc.setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"enter the mounts of {node}")
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_work).result()
