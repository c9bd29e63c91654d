"""A node: a namespace with an uplink and mounts of its own, where CNI plugins are executed."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.pytest_netns import mounts
from tests.pytest_netns.namespace import Namespace, run
from tests.pytest_netns.underlay import Family, Underlay

Verb = Literal["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class CniResult:
    """What one execution of a plugin answered."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on standard output; AssertionError if it is not exactly one."""
        try:
            answer = json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"standard output is not JSON: {self}") from error
        assert isinstance(answer, dict), self
        return answer

    @property
    def addresses(self) -> list[str]:
        """Addresses with prefix lengths, of a result of version 0.3.0 or newer."""
        return [ip["address"] for ip in self.json["ips"]]


class Node:
    """A namespace with `eth0` on the underlay, default routes, and mounts of its own.

    `/run` and `/var/lib` are empty and vanish with the node, `/run/netns` is the machine's,
    `/sys` shows the node's links.
    """

    def __init__(self, ns: Namespace, underlay: Underlay, mtu: int) -> None:
        self.ns = ns
        self.underlay = underlay
        self.addresses = underlay.attach(ns, mtu)
        """Of the uplink, by their families."""
        self._mounts = ns.call(mounts.make)

    def __repr__(self) -> str:
        return f"Node({self.ns.name!r})"

    def address(self, family: Family) -> str:
        """Address of the uplink."""
        return self.addresses[family]

    def remove(self) -> None:
        """End the node: its processes, mounts and namespace. Repeatable."""
        self.ns.remove()
        if self._mounts >= 0:
            os.close(self._mounts)
            self._mounts = -1

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the node. `env` is its whole environment, but for a default PATH."""
        whole = {"PATH": SEARCH_PATH, **(env or {})}
        return run([*self.enter, *argv], stdin=stdin, env=whole, check=check)

    @property
    def enter(self) -> list[str]:
        """Command prefix that runs the rest on the node, for a subprocess of the test's own."""
        # Also for a process that is no child: the descriptor is this process's.
        place = f"/proc/{os.getpid()}/fd/{self._mounts}"
        return ["nsenter", f"--net={self.ns.path}", f"--mount={place}", "--"]

    def ip(self, command: str) -> list[dict[str, Any]]:
        """What `ip -j COMMAND` says on the node."""
        return self.ns.ip(command)

    def cni(
        self,
        command: Verb | str,
        plugin: Path,
        conf: Mapping[str, Any] | bytes,
        *,
        container_id: str = "c1",
        netns: Path | str = "",
        ifname: str = "eth0",
        args: str = "",
        cni_path: Path | str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CniResult:
        """Execute a plugin as a runtime does (CNI SPEC, "Section 2: Execution Protocol").

        `cni_path` is the plugin's directory unless given; `env` adds to or replaces variables.
        """
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": str(plugin.parent if cni_path is None else cni_path),
            **(env or {}),
        }
        stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        done = self.run([plugin], stdin=stdin, env=variables, check=False)
        return CniResult(done.returncode, done.stdout, done.stderr)
