"""A node that podwire is installed on, by its scripts."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.pytest_netns import Node

ROOT = Path(__file__).resolve().parents[3]
Done: TypeAlias = "subprocess.CompletedProcess[str]"


@dataclass(frozen=True)
class Place:
    """A release unpacked somewhere, and where it is installed to."""

    source: Path
    prefix: Path
    cni_bin: Path
    bin: Path
    data: Path

    def run(self, script: str, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script of packaging/."""
        argv = [self.source / "packaging" / script, "--prefix", self.prefix, *words]
        inherited = {k: v for k, v in os.environ.items() if k != "CC"}
        return subprocess.run(
            argv, env={**inherited, **env}, capture_output=True, text=True, check=False
        )

    def install(self, *words: str | Path, **env: str) -> str:
        """A successful installation's words."""
        done = self.run("install", *self.folders, *words, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def folders(self) -> list[str | Path]:
        """Options that keep an installation off this machine."""
        own: list[str | Path] = ["--data-dir", self.data, "--etc", self.data]
        return ["--cni-bin", self.cni_bin, "--bin", self.bin, *own]

    def answers(self, name: str) -> bool:
        """Whether the plugin of that name answers, with its Python: it refuses the verb."""
        env = {"CNI_COMMAND": "NONE", "PODWIRE_SOCKET": str(self.prefix / "no-daemon")}
        done = subprocess.run(
            [self.cni_bin / name], env=env, input=b"{}", capture_output=True, check=False
        )
        return bool(done.stdout) and bool(json.loads(done.stdout)["code"] == 4)

    def environments(self) -> list[str]:
        """The Python environments that are there; the one in use last."""
        used = (self.prefix / "venv").resolve()
        found = [p for p in self.prefix.glob("venv-*") if p != used and (p / "bin").exists()]
        return [*sorted(path.name for path in found), used.name]

    def names(self) -> dict[str, str]:
        """What the runtime finds in its folder: a link's target, or a file's text."""
        return self._list(self.cni_bin)

    def commands(self) -> dict[str, str]:
        """What people find in theirs."""
        return self._list(self.bin)

    @staticmethod
    def _list(folder: Path) -> dict[str, str]:
        found = sorted(folder.iterdir())
        return {p.name: os.readlink(p) if p.is_symlink() else p.read_text() for p in found}


CLUSTER = {
    "nodes": [
        {"name": "node-1", "addresses": ["{}"], "podCIDRs": ["10.244.1.0/24"]},
        {"name": "node-2", "addresses": ["192.0.2.200"], "podCIDRs": ["10.244.2.0/24"]},
    ]
}


@dataclass
class Used:
    """A node with an installation, and a daemon that may run on it."""

    node: Node
    place: Place
    config: Path
    conflist: Path
    daemon: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start the daemon, and wait until it has done its work."""
        program = self.place.prefix / "venv" / "bin" / "podwired"
        argv: list[str | Path] = [*self.node.enter, program, "run", "--config", self.config]
        self.daemon = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        if not wait:
            return
        until = time.monotonic() + 60
        status = program.with_name("podwirectl"), "status", "-o", "json", "--config", self.config
        # Not by the exit status: the other node does not answer, which is a finding soon.
        while not json.loads(self.node.run(status, check=False).stdout or "{}").get("inSync"):
            assert time.monotonic() < until
            time.sleep(0.1)

    def kill(self) -> None:
        """As kill -9 does."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def podwired(self, *words: str | Path) -> Done:
        """Run one of its commands on the node."""
        return self.node.run([self.place.prefix / "venv" / "bin" / "podwired", *words], check=False)

    def uninstall(self, *words: str | Path) -> Done:
        """Run the script on the node."""
        script = self.place.source / "packaging" / "uninstall"
        return self.node.run([script, "--prefix", self.place.prefix, *words], check=False)

    def files(self) -> list[str]:
        """What is below the node's own /var/lib and /run."""
        argv = ["find", "/var/lib", "/run", "-mindepth", "1", "-path", "/run/netns", "-prune"]
        return sorted(self.node.run([*argv, "-o", "-print"]).stdout.split())
