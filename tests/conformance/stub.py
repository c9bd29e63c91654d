"""A delegated IPAM plugin that records its calls and answers what the test says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .spec import at_least

Json = dict[str, Any]

# A shell script starts in a millisecond, and a delegated plugin may be any executable.
_SCRIPT = """#!/bin/sh
here=${0%/*}
cat > "$here/$CNI_COMMAND.stdin"
env > "$here/$CNI_COMMAND.env"
echo "$CNI_COMMAND" >> "$here/calls"
echo "stub speaks on stderr" >&2
if [ -f "$here/$CNI_COMMAND.reply" ]; then cat "$here/$CNI_COMMAND.reply"; fi
if [ -f "$here/$CNI_COMMAND.fails" ]; then exit 1; fi
exit 0
"""


@dataclass(frozen=True, slots=True)
class Stub:
    """The executable *name* in *folder*."""

    folder: Path
    name: str = "conformance-ipam"

    def install(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / self.name
        path.write_text(_SCRIPT)
        path.chmod(0o755)

    def answers(self, command: str, text: str) -> None:
        (self.folder / f"{command}.reply").write_text(text)
        (self.folder / f"{command}.fails").unlink(missing_ok=True)

    def hands_out(self, version: str, address: str, gateway: str) -> None:
        """ADD succeeds with one IPv4 address, in the form of *version*."""
        self.answers("ADD", json.dumps(_result(version, address, gateway)))

    def fails(self, command: str, version: str, code: int, msg: str) -> None:
        error = {"cniVersion": version, "code": code, "msg": msg}
        self.answers(command, json.dumps(error))
        (self.folder / f"{command}.fails").touch()

    def calls(self) -> list[str]:
        """The verbs in the order in which they came."""
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    def stdin(self, command: str) -> Json:
        """The configuration of the last call of *command*; asserts that there was one."""
        assert command in self.calls(), f"{command} was not delegated: {self.calls()}"
        loaded: Json = json.loads((self.folder / f"{command}.stdin").read_bytes())
        return loaded

    def environment(self, command: str) -> dict[str, str]:
        """The CNI_* variables of the last call of *command*; asserts that there was one."""
        assert command in self.calls(), f"{command} was not delegated: {self.calls()}"
        lines = (self.folder / f"{command}.env").read_text().splitlines()
        pairs = (line.split("=", 1) for line in lines if line.startswith("CNI_"))
        return dict(pairs)


def _result(version: str, address: str, gateway: str) -> Json:
    if not at_least(version, "0.3.0"):
        return {"cniVersion": version, "ip4": {"ip": address, "gateway": gateway}}
    ip = {"address": address, "gateway": gateway}
    if not at_least(version, "1.0.0"):
        ip["version"] = "4"
    return {"cniVersion": version, "ips": [ip]}
