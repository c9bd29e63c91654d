"""A warm interpreter that forks for each CNI call and runs podwire's entry point there.

Run as a program: `python -I zygote.py SOCKET`. Each connection to SOCKET is one call: a JSON line
says what to run, JSON lines come back: {"stopped": PID} when the call stopped itself (send a line
to continue it), and at last the outcome. It ends when its standard input does, and no process
that it started outlives it.

A call can be made to stop or to die at a chosen instant: podwire's functions and lines are the
instants, counted by a trace function (sys.settrace).
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from types import FrameType
from typing import Any

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
PR_SET_PDEATHSIG = 1
PACKAGES = ("cni_plugin", "ipam", "kernel")
MODULES = (
    *("cni_plugin.__main__", "cni_plugin.handle", "cni_plugin.add", "cni_plugin.delete"),
    *("cni_plugin.check", "cni_plugin.ipam_plugin", "ipam.recovery", "ipam.config"),
    *("pyroute2", "sqlite3", "subprocess", "shutil"),
)
PURE = {
    # Modules that only compute: an instant inside them is the same as the one before or after.
    *("attachment.py", "config.py", "json_section.py", "names.py", "plan.py", "ranges.py"),
    *("request.py", "result.py", "versions.py"),
    *("codec.py", "describe.py", "diff.py", "errors.py", "links.py", "model.py", "routes.py"),
}

_libc = ctypes.CDLL(None, use_errno=True)


def warm_up() -> None:
    """Import what calls import."""
    import importlib

    for name in MODULES:
        importlib.import_module(name)


def serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if listener not in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            die_with_parent()
            listener.close()
            supervise(connection)
            os._exit(0)
        connection.close()


def die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def supervise(connection: socket.socket) -> None:
    """Fork the call, report its stops and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection, connection.makefile("rw") as stream, ExitStack() as opened:
        request = json.loads(stream.readline())
        files = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
        files[0].write(request["stdin"].encode("utf-8", "surrogateescape"))
        files[0].seek(0)
        child = os.fork()
        if child == 0:
            die_with_parent()
            run(request, [file.fileno() for file in files])
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            say(stream, {"stopped": child})
            stream.readline()
            os.kill(child, signal.SIGCONT)
        out, err, events = (read_all(file) for file in files[1:])
        code = os.waitstatus_to_exitcode(status)
        say(stream, {"code": code, "stdout": out, "stderr": err, "events": int(events or 0)})


def say(stream: Any, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def read_all(file: Any) -> str:
    file.seek(0)
    return bytes(file.read()).decode("utf-8", "replace")


def run(request: dict[str, Any], fds: list[int]) -> None:
    """Become the call: its namespaces, environment, streams and arguments. Does not return."""
    code = 1
    try:
        for path, kind in ((request["net"], CLONE_NEWNET), (request["mnt"], CLONE_NEWNS)):
            with open(path) as file:
                if _libc.setns(file.fileno(), kind):
                    raise OSError(ctypes.get_errno(), f"setns {path}")
        for target, fd in enumerate(fds[:3]):
            os.dup2(fd, target)
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = [request["program"]]
        code = traced(request.get("at"), fds[3])
    finally:
        sys.stderr.flush()
        os._exit(code)


def traced(at: dict[str, Any] | None, fd: int) -> int:
    from cni_plugin.__main__ import ipam_main, main

    entry = ipam_main if sys.argv[0].endswith("podwire-ipam") else main
    if at is None:
        return entry()
    instants = Instants(**at)
    sys.settrace(instants.enter)
    try:
        return entry()
    finally:
        sys.settrace(None)
        os.write(fd, str(instants.count).encode())


class Instants:
    """Counts instants; at the chosen one the process stops or dies.

    event: the number of the instant, or 0 to only count. function: "attach.py:detach", stop when
    that function is entered for the first time.
    """

    def __init__(self, event: int = 0, function: str = "", stop: bool = False) -> None:
        self.event, self.function = event, function
        self.signal = signal.SIGSTOP if stop else signal.SIGKILL
        self.count = 0

    def enter(self, frame: FrameType, _what: str, _value: Any) -> Any:
        folder, _, name = frame.f_code.co_filename.rpartition("/")
        if folder.rpartition("/")[2] not in PACKAGES or name in PURE:
            return None
        if self.function == f"{name}:{frame.f_code.co_name}":
            self.function = ""
            os.kill(os.getpid(), self.signal)
        self.tick()
        return self.step

    def step(self, _frame: FrameType, what: str, _value: Any) -> Any:
        if what == "line":
            self.tick()
        return self.step

    def tick(self) -> None:
        self.count += 1
        if self.count == self.event:
            os.kill(os.getpid(), self.signal)


if __name__ == "__main__":
    warm_up()
    serve(sys.argv[1])
