"""Delegation to another plugin (SPEC 1.1.0, section 4): found in CNI_PATH, same stdin, same env."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cni_plugin.errors import DELEGATE_FAILED, INVALID_CONFIG, TRY_AGAIN, CniError
from cni_plugin.request import Request
from cni_plugin.result import Result, parse_result

NO_CHANGE: Mapping[str, str] = MappingProxyType({})
_TIMEOUT_SECONDS = 110  # below kubelet's two minutes, so that the runtime still hears why


@dataclass(frozen=True, slots=True)
class Delegate:
    """Another plugin's executable and the call that it is to be handed on.

    log: takes a line for the operator. waiting: what this call is in while that one runs.
    """

    name: str
    program: Path
    env: Mapping[str, str]
    stdin: bytes
    version: str
    log: Callable[[str], None]
    waiting: Callable[[], AbstractContextManager[None]]

    def add(self) -> Result:
        """Execute ADD; after a failure DEL, as the specification demands."""
        try:
            return parse_result(self._run("ADD"), self.version, f"the result of {self.name}")
        except BaseException:
            self.undo()
            raise

    def run(self, command: str, env: Mapping[str, str] = NO_CHANGE) -> None:
        """Execute a verb without a result. Raises CniError with the plugin's own code.

        env: variables that differ from the call's.
        """
        self._run(command, env)

    def undo(self) -> None:
        """Execute DEL after a failure; what goes wrong is only said."""
        try:
            self._run("DEL")
        except CniError as error:
            self.log(f"undo through {self.name} failed: {error}")

    def _run(self, command: str, changes: Mapping[str, str] = NO_CHANGE) -> dict[str, Any]:
        import subprocess

        env = {"PATH": os.defpath, **self.env, **changes, "CNI_COMMAND": command}
        try:
            with self.waiting():
                done = subprocess.run(
                    [self.program], input=self.stdin, env=env, stdout=subprocess.PIPE,
                    timeout=_TIMEOUT_SECONDS, check=False,
                )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            msg = f"IPAM plugin {self.name} did not answer {command} in {_TIMEOUT_SECONDS} s"
            raise CniError(TRY_AGAIN, msg, str(self.program)) from error
        except OSError as error:
            msg = f"IPAM plugin {self.name} cannot be executed: {error.strerror}"
            raise CniError(DELEGATE_FAILED, msg, str(self.program)) from error
        answer = _decode(done.stdout)
        if done.returncode:
            raise self._failure(command, answer, done.returncode)
        return answer

    def _failure(self, command: str, answer: dict[str, Any], status: int) -> CniError:
        code = answer.get("code")
        words = answer.get("msg") or f"exit status {status}"
        msg = f"IPAM plugin {self.name} failed at {command}: {words}"
        known = isinstance(code, int) and not isinstance(code, bool) and code > 0
        return CniError(code if known else DELEGATE_FAILED, msg, str(answer.get("details") or ""))  # type: ignore[arg-type]


def _decode(stdout: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(stdout.decode()) if stdout.strip() else {}
    except (ValueError, RecursionError):
        answer = {}
    return answer if isinstance(answer, dict) else {}


def find_program(name: str, request: Request) -> Path | None:
    """The first executable of that name in CNI_PATH."""
    for folder in request.path:
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


def require_program(name: str, request: Request) -> Path:
    """The executable of an IPAM type. Raises code 7 where CNI_PATH has no such executable."""
    program = find_program(name, request)
    if program is None:
        where = ":".join(request.path) or "CNI_PATH, which is empty"
        raise CniError(INVALID_CONFIG, f"ipam.type: {name!r} is no executable in {where}")
    return program
