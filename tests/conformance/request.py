"""One execution of a plugin: what goes in, what comes out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .namespaces import Namespace
from .netconf import TEMPORARY
from .spec import code_is_legal

Json = dict[str, Any]
TIMEOUT = 30.0  # seconds; a plugin that needs longer counts as hung


@dataclass(frozen=True, slots=True)
class Request:
    """Environment and standard input of one call; None leaves a variable unset."""

    command: str | None
    container_id: str | None = None
    netns: str | None = None
    ifname: str | None = None
    args: str | None = None
    path: str | None = None
    stdin: bytes = b""

    def environment(self) -> dict[str, str]:
        """The CNI_* variables (SPEC section 2, Parameters)."""
        values = {
            "CNI_COMMAND": self.command,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.args,
            "CNI_PATH": self.path,
        }
        return {name: value for name, value in values.items() if value is not None}


class NotOneObject(ValueError):
    """The text is not exactly one JSON object."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotOneObject(f"a key occurs twice in {[key for key, _ in pairs]}")
    return found


def _no_constant(name: str) -> Any:
    raise NotOneObject(f"{name} is not JSON")


def parse_object(text: bytes) -> Json:
    """Exactly one JSON object in UTF-8; raises NotOneObject."""
    try:
        value = json.loads(
            text.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NotOneObject(str(error)) from error
    if not isinstance(value, dict):
        raise NotOneObject(f"{type(value).__name__}, not an object")
    return value


@dataclass(frozen=True, slots=True)
class Reply:
    """What a plugin answered."""

    request: Request
    status: int
    stdout: bytes
    stderr: bytes

    def __str__(self) -> str:
        call = " ".join(f"{k}={v!r}" for k, v in self.request.environment().items())
        stdin = self.request.stdin[:500].decode(errors="backslashreplace")
        out, err = (t[:2000].decode(errors="replace") for t in (self.stdout, self.stderr))
        return f"\n{call}\nstdin: {stdin}\nexit: {self.status}\nstdout: {out}\nstderr: {err}"

    def ok(self) -> None:
        """Success without a result: exit status 0 and nothing but JSON on stdout."""
        self._no_crash()
        assert self.status == 0, f"exit status is not 0{self}"
        if self.stdout.strip():
            self._object()

    def silent(self) -> None:
        """Success of a verb that has no output."""
        self.ok()
        assert not self.stdout.strip(), f"output where none is specified{self}"

    def result(self) -> Json:
        """Success with one JSON object on stdout."""
        self.ok()
        return self._object()

    def error(self, *codes: int) -> Json:
        """One error object with a legal code (of *codes*, if given), exit status not 0."""
        self._no_crash()
        assert self.status != 0, f"exit status is 0{self}"
        found = self._object()
        code, msg = found.get("code"), found.get("msg")
        assert code_is_legal(code), f"code {code!r} is neither well-known nor >= 100{self}"
        assert isinstance(msg, str), f"msg is {msg!r}{self}"
        assert msg, f"msg is empty{self}"
        assert isinstance(found.get("details", ""), str), f"details is not a string{self}"
        assert isinstance(found.get("cniVersion", ""), str), f"cniVersion is no string{self}"
        assert not codes or code in codes, f"code is {code}, not one of {codes}{self}"
        return found

    def failed(self) -> bool:
        """Whether it is an error; either way the form of the answer is asserted."""
        if self.status:
            self.error()
        else:
            self.ok()
        return self.status != 0

    def _object(self) -> Json:
        try:
            return parse_object(self.stdout)
        except NotOneObject as error:
            raise AssertionError(f"stdout is not one JSON object: {error}{self}") from error

    def _no_crash(self) -> None:
        text = self.stdout + self.stderr
        assert self.status >= 0, f"killed by signal {-self.status}{self}"
        for mark in (b"Traceback (most recent call last)", b"panic: ", b"goroutine 1 ["):
            assert mark not in text, f"crashed{self}"


@dataclass(frozen=True, slots=True)
class Running:
    """A call that has been started and not yet waited for."""

    request: Request
    process: subprocess.Popen[bytes]

    def wait(self) -> Reply:
        try:
            stdout, stderr = self.process.communicate(timeout=TIMEOUT)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise AssertionError(f"no answer within {TIMEOUT} s: {self.request}") from error
            raise
        return Reply(self.request, self.process.returncode, stdout, stderr)


@dataclass(frozen=True, slots=True)
class Plugin:
    """The executable under test and the environment that it needs besides CNI_*."""

    path: str
    environment: Mapping[str, str]

    def with_folder(self, folder: Path) -> Plugin:
        """The same with *folder* as the temporary folder that its environment names."""
        local = {k: v.replace(TEMPORARY, str(folder)) for k, v in self.environment.items()}
        return Plugin(self.path, local)

    def start(self, request: Request, node: Namespace, stdin: Any = None) -> Running:
        """Starts it inside *node*; *stdin* (a file) replaces the request's."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), **self.environment}
        with tempfile.TemporaryFile() as body:
            body.write(request.stdin)
            body.seek(0)
            process = subprocess.Popen(
                ("ip", "netns", "exec", node.name, self.path),
                env={**environment, **request.environment()},
                stdin=body if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        return Running(request, process)

    def run(self, request: Request, node: Namespace, stdin: Any = None) -> Reply:
        return self.start(request, node, stdin).wait()
