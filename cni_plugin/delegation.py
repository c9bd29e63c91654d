"""Delegation to another plugin (SPEC 1.1.0, section 4): found in CNI_PATH, same stdin, same env."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_plugin.errors import DELEGATE_FAILED, INVALID_CONFIG, TRY_AGAIN, CniError
from cni_plugin.request import Request, decode_json
from cni_plugin.result import Result, parse_result

if TYPE_CHECKING:
    from cni_plugin.host import Call

ADD_SECONDS = 90.0
"""After the call's beginning; the rest is for the DEL that undoes it."""
CALL_SECONDS = 110.0
"""Below the shim's 115 s and kubelet's two minutes, so that the runtime still gets the reason."""
_LINES_MAX = 100


@dataclass(frozen=True, slots=True)
class Delegate:
    """Another plugin's executable and the call that it is to be handed on."""

    name: str
    program: Path
    call: Call

    def add(self) -> Result:
        """Execute ADD; after a failure DEL, as the specification demands."""
        with self.call.host.delegating(self.name):
            try:
                return self._parse(self._run("ADD"))
            except BaseException:
                self.undo()
                raise

    def run(self, command: str, **changes: str) -> None:
        """Execute a verb without a result. Raises CniError with the plugin's own code.

        changes: variables that differ from the call's.
        """
        with self.call.host.delegating(self.name):
            self._run(command, **changes)

    def undo(self) -> None:
        """Execute DEL after a failure, however many wait; a failure is only logged."""
        try:
            self._run("DEL")
        except CniError as error:
            self.call.log(f"undo through {self.name} failed: {error}")

    def _parse(self, stdout: bytes) -> Result:
        answer = _decode(stdout)
        if answer is None:
            msg = f"IPAM plugin {self.name} answered ADD with no JSON object"
            raise CniError(DELEGATE_FAILED, msg, _begin(stdout))
        try:
            result = parse_result(answer, self.call.version, f"the result of {self.name}")
        except CniError as error:
            raise CniError(DELEGATE_FAILED, error.msg, error.details) from error
        if not result.ips:
            raise CniError(DELEGATE_FAILED, f"IPAM plugin {self.name} returned no address")
        return result

    def _run(self, command: str, **changes: str) -> bytes:
        """Its output. Raises CniError."""
        from cni_plugin.exec import STDOUT_MAX, TooLate, TooMuch, execute

        host, stdin = self.call.host, self.call.stdin
        env = {"PATH": os.defpath, **self.call.env, **changes, "CNI_COMMAND": command}
        seconds = self._seconds(command)
        stderr = bytearray()
        try:
            with host.outside():
                ended = execute(self.program, env, stdin, seconds, host.running, stderr)
        except TooLate as error:
            msg = f"IPAM plugin {self.name} did not answer {command} in {seconds:.0f} s"
            raise CniError(TRY_AGAIN, msg, f"{self.program} was killed") from error
        except TooMuch as error:
            msg = f"IPAM plugin {self.name} wrote more than {STDOUT_MAX} bytes at {command}"
            raise CniError(DELEGATE_FAILED, msg, f"{self.program} was killed") from error
        except OSError as error:
            msg = f"IPAM plugin {self.name} cannot be executed: {error.strerror}"
            raise CniError(DELEGATE_FAILED, msg, str(self.program)) from error
        finally:
            self._log_stderr(stderr)
        if ended.status:
            raise self._failure(command, ended.stdout, ended.status)
        return ended.stdout

    def _seconds(self, command: str) -> float:
        """What is left of the call's time. Raises CniError where nothing is."""
        limit = ADD_SECONDS if command == "ADD" else CALL_SECONDS
        left = self.call.host.began + limit - time.monotonic()
        if left <= 0:
            msg = f"no time was left to execute IPAM plugin {self.name} with {command}"
            raise CniError(TRY_AGAIN, msg, f"this call began {limit - left:.0f} s ago")
        return left

    def _log_stderr(self, stderr: bytearray) -> None:
        """Its stderr (SPEC 1.1.0, section 4: "should" go to the caller's)."""
        lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
        for line in lines[:_LINES_MAX]:
            self.call.log(f"{self.name}: {_printable(line)}")
        if len(lines) > _LINES_MAX:
            self.call.log(f"{self.name}: {len(lines) - _LINES_MAX} more lines are left out")

    def _failure(self, command: str, stdout: bytes, status: int) -> CniError:
        from cni_plugin.exec import describe_end

        answer = _decode(stdout) or {}
        code, text = answer.get("code"), answer.get("msg") or describe_end(status)
        msg = f"IPAM plugin {self.name} failed at {command}: {text}"
        known = isinstance(code, int) and not isinstance(code, bool) and code > 0
        details = str(answer.get("details") or ("" if answer else _begin(stdout)))
        return CniError(code if known else DELEGATE_FAILED, msg, details)  # type: ignore[arg-type]


def _decode(stdout: bytes) -> dict[str, Any] | None:
    """The JSON object; None where it is none."""
    try:
        answer = decode_json(stdout)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _begin(stdout: bytes) -> str:
    """What it wrote, for people: as much as fits on a line."""
    text = _printable(stdout[:200].decode(errors="replace").strip())
    return f"it wrote: {text}" if text else "it wrote nothing"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


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
