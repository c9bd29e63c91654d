"""A CNI call in flight, which a test can kill."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from tests.netns.daemon.conftest import SECONDS, Daemon
from tests.pytest_netns.node import SEARCH_PATH, CniResult


class Call:
    """The shim's process, started on the daemon's node."""

    def __init__(
        self,
        daemon: Daemon,
        program: Path,
        verb: str,
        conf: Mapping[str, Any],
        *,
        container_id: str = "c1",
        netns: Path | str = "",
    ) -> None:
        env = {
            "PATH": SEARCH_PATH,
            "PODWIRE_SOCKET": str(daemon.path),
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(program.parent),
        }
        pipe = subprocess.PIPE
        # nsenter executes the program: the process is the shim itself.
        self._process = subprocess.Popen(
            [*daemon.node.enter, str(program)], stdin=pipe, stdout=pipe, stderr=pipe, env=env
        )
        with cast(IO[bytes], self._process.stdin) as stdin:
            stdin.write(json.dumps(conf).encode())
        self._process.stdin = None

    def kill(self, after: float) -> CniResult:
        """End it by SIGKILL unless it has answered within so many seconds; what it answered."""
        try:
            return self._finish(after)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._finish(SECONDS)

    def result(self) -> CniResult:
        """What it answers."""
        return self._finish(SECONDS)

    def _finish(self, seconds: float) -> CniResult:
        out, err = self._process.communicate(timeout=seconds)
        return CniResult(self._process.returncode, out.decode(), err.decode())
