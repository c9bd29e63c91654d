"""A node of a cluster: its configuration, its daemon, its pods."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.daemon import Daemon
from tests.bench.world import Host, Pod
from tests.pytest_netns.node import SEARCH_PATH, CniResult

SOCKET = "/run/podwire.sock"
"""Each node has a /run of its own."""
SYNC_TIMEOUT = 60.0


class Stuck(Exception):
    """Something that had to become true did not."""


def wait_for(
    what: str, holds: Callable[[], bool], gap: float = 0.005, most: float = SYNC_TIMEOUT
) -> float:
    """Wait until it holds; when that was seen. Raises Stuck."""
    deadline = time.monotonic() + most
    while not holds():
        if time.monotonic() > deadline:
            raise Stuck(f"{what} did not happen within {most:g} s")
        time.sleep(gap)
    return time.monotonic()


class Member:
    """One node. program: what starts the daemon, `podwired` or something around it.

    settings: more of podwired.yaml.
    """

    def __init__(
        self, host: Host, name: str, listing: Path, program: Sequence[str | Path],
        *, masquerade: bool = True, **settings: object,
    ) -> None:  # fmt: skip
        self.host, self.name = host, name
        self._program = [*program]
        self._daemon: Daemon | None = None
        folder = host.work_dir
        self._config, self._status = folder / "podwired.yaml", folder / "status.json"
        self._conflist = folder / "05-podwire.conflist"
        whole = {
            "node": name,
            "source": {"static": str(listing)},
            "dataDir": str(folder / "data"),
            "socket": SOCKET,
            "statusFile": str(self._status),
            "conflist": {"path": str(self._conflist), "ipMasq": masquerade},
            **settings,
        }
        self._config.write_text(json.dumps(whole))  # JSON is YAML

    @property
    def address(self) -> str:
        """On the underlay."""
        return self.host.node.address(4)

    @property
    def daemon(self) -> Daemon:
        """The one that runs."""
        if self._daemon is None:
            raise Stuck(f"{self.name} has no daemon")
        return self._daemon

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start the daemon; it serves when this returns, and may not route yet."""
        argv = [*self._program, "run", "--config", self._config]
        self._daemon = Daemon(self.host, argv, {"PATH": SEARCH_PATH, **(env or {})})

    def stop(self, *, kill: bool = False) -> None:
        """End the daemon, in order or with SIGKILL."""
        daemon, self._daemon = self.daemon, None
        if kill:
            daemon.kill()
        else:
            daemon.stop()

    def end(self) -> None:
        """End the daemon if one runs."""
        if self._daemon is not None:
            self.stop()

    def status(self) -> dict[str, Any]:
        """What the daemon says about itself; empty while it says nothing."""
        try:
            return dict(json.loads(self._status.read_bytes()))
        except FileNotFoundError:
            return {}

    def is_in_sync(self, wanted: int) -> bool:
        """Whether the daemon says that so many entries are as planned, and the node ready."""
        said = self.status()
        return bool(
            said
            and said["pid"] == self.daemon.pid
            and said["wanted"] == said["inSync"] == wanted
            and not said["fault"]
        )

    def wait_in_sync(self, wanted: int) -> None:
        """Wait for that; Stuck with the daemon's last words else."""
        try:
            wait_for(f"{self.name} in sync", lambda: self.is_in_sync(wanted))
        except Stuck as error:
            raise Stuck(f"{error}: {self.status()} {self.daemon.log()}") from error

    def attach(self, pod: Pod, plugin: Path, args: str = "") -> str:
        """Give a pod its eth0 by the configuration that the daemon wrote; its address."""
        wait_for(f"{self._conflist}", self._conflist.exists)
        return str(self._call("ADD", pod, plugin, args).addresses[0]).partition("/")[0]

    def detach(self, pod: Pod, plugin: Path) -> None:
        """Take it again."""
        self._call("DEL", pod, plugin)

    def _call(self, verb: str, pod: Pod, plugin: Path, args: str = "") -> CniResult:
        listed = json.loads(self._conflist.read_text())
        conf = {"cniVersion": listed["cniVersion"], "name": listed["name"], **listed["plugins"][0]}
        answer = self.host.node.cni(
            verb, plugin, conf,
            container_id=pod.name, netns=pod.path, env={"PODWIRE_SOCKET": SOCKET}, args=args,
        )  # fmt: skip
        if answer.code:
            raise Stuck(f"{self.name}: {verb}: {answer.stdout} {answer.stderr}")
        return answer
