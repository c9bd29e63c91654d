"""A cluster in small: nodes on one underlay, their list in one file, a daemon on each."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node
from tests.pytest_netns.plugin import MakeNamespace, MakeNode

DEVICE = "podwire-vxlan"
STATUS = Path("/run/podwire/status.json")
DEADLINE = 60.0
"""Seconds after which something that must become true counts as never."""
ANEW = 2.0
"""Seconds after which `podwirectl status` is run again although nothing changed."""


def eventually(check: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until the check holds; AssertionError with what it said last.

    Looking takes most of a processor where it starts programs, and what is waited for needs that,
    too: the longer a look or the wait takes, the further apart are the looks.
    """
    began = looked = time.monotonic()
    while (last := check()) is not True:
        now = time.monotonic()
        assert now < began + seconds, f"did not become true: {last!r}"
        time.sleep(max(0.02, 2 * (now - looked), (now - began) / 30))
        looked = time.monotonic()


@dataclass
class Member:
    """A node of the cluster: its namespace, its files, its daemon, its pods."""

    node: Node
    name: str
    number: int
    folder: Path
    podwired: Path
    make_pod: Callable[[], Namespace]
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    pods: list[Namespace] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None
    _said: str = ""
    _asked: tuple[float, object] = (0.0, None)

    @property
    def podwirectl(self) -> Path:
        return self.podwired.with_name("podwirectl")

    @property
    def cidrs(self) -> list[str]:
        return [f"10.244.{self.number}.0/24", f"fd00:10:244:{self.number}::/64"]

    @property
    def addresses(self) -> list[str]:
        return [self.node.address(4), self.node.address(6)]

    def start(self, **settings: object) -> None:
        """Start the daemon, with settings beside the usual ones."""
        conf = self.write_settings(**settings)
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*self.node.enter, self.podwired, "run", "--config", conf],
                stderr=log,
                env={"PATH": os.environ["PATH"], **self.environment},
            )

    def write_settings(self, **settings: object) -> Path:
        """The file of the settings, these beside the usual ones."""
        self.settings |= settings
        conf, fresh = self.folder / "podwired.yaml", self.folder / "podwired.yaml.new"
        fresh.write_text(json.dumps(self.settings))  # JSON is YAML
        return fresh.rename(conf)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the daemon and wait for its end: its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def conflist(self) -> Path:
        return self.folder / "05-podwire.conflist"

    @property
    def saved_policies(self) -> Path:
        """The daemon's file of policies; it is on the node's own /var/lib."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root/var/lib/podwire/policy.json")

    def status(self) -> dict[str, Any]:
        """What `podwirectl status` says.

        Who waits looks again and again, and each answer takes the start of an interpreter: without
        news the last one is good for a moment.
        """
        when, news = self._asked
        if time.monotonic() > when + ANEW or news is None or news != self._news():
            self._asked = time.monotonic(), self._news()
            # By its configuration it would read that first, for three times as long.
            argv: list[str | Path] = [self.podwirectl, "status", "-o", "json", "--file", STATUS]
            self._said = self.node.run(argv, check=False).stdout
        return dict(json.loads(self._said or "{}"))

    def fault(self, part: str) -> str:
        """What `podwirectl status` says is wrong with a part; empty where nothing is."""
        return str(self.status().get("faults", {}).get(part, ""))

    def _news(self) -> object:
        """Another one where the status may be another; None where no daemon runs."""
        if self.process is None or self.process.poll() is not None:
            return None
        # The daemon sees its node's files.
        return self.process.pid, _version(Path(f"/proc/{self.process.pid}/root{STATUS}"))

    def history(self, wanted: str = "", since: str = "") -> list[dict[str, str]]:
        """What `podwirectl history` lists; of the file, for a configuration takes long to read."""
        file = Path(self.settings["journal"]["path"])
        command: list[str | Path] = [self.podwirectl, "history", "-o", "json", "--file", file]
        command += ["--object", wanted] if wanted else []
        command += ["--since", since] if since else []
        done = self.node.run(command)
        text = done.stdout.strip()
        if text.startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines()]

    def attach(self, plugin: Path, **conf: object) -> Namespace:
        """A pod, by the CNI configuration that the daemon wrote, or is about to; conf: beside."""
        eventually(self.conflist.exists)
        pod = self.make_pod()
        self.pods.append(pod)
        conf, name = {**self.conf(), **conf}, f"c{len(self.pods)}"
        answer = self.node.cni("ADD", plugin, conf, container_id=name, netns=pod.path)
        assert answer.code == 0, (answer, self.log)
        return pod

    def conf(self) -> dict[str, Any]:
        """The CNI configuration that the daemon wrote, as a runtime gives it to the plugin."""
        listed = json.loads(self.conflist.read_text())
        names = {key: listed[key] for key in ("name", "cniVersion")}
        return {**listed["plugins"][0], **names}

    def routes(self) -> set[str]:
        """Destinations of the routes to other nodes."""
        found = self.node.ip("route show proto 113") + self.node.ip("-6 route show proto 113")
        return {str(route["dst"]) for route in found if route}

    def has_routes(self, wanted: set[str]) -> object:
        """True where these are all of its routes to other nodes, else what there is."""
        return self.routes() == wanted or (self.routes(), self.log)

    def has_route(self, prefix: str) -> object:
        """True where there is a route of podwire's to the prefix, else the log."""
        found = self.node.ip(f"route show {prefix} proto 113")
        return any(route.get("dst") == prefix for route in found) or self.log

    def is_in_sync(self) -> object:
        """True where all is as it should be, else the log."""
        return self.status().get("inSync") or self.log

    def fdb(self) -> set[str]:
        """VTEPs that the device knows."""
        done = self.node.run(["bridge", "-j", "fdb", "show", "dev", DEVICE], check=False)
        return {str(entry["dst"]) for entry in json.loads(done.stdout or "[]") if "dst" in entry}


def _version(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class Cluster:
    """Members and the list of them."""

    def __init__(self, folder: Path, make_node: MakeNode, podwired: Path, pods: MakeNamespace):
        self.file = folder / "nodes.yaml"
        self.members: list[Member] = []
        self._folder, self._make_node, self._podwired = folder, make_node, podwired
        self._make_pod = lambda: pods("pod")

    def join(self, *, start: bool = True, mtu: int = 1500, **settings: object) -> Member:
        """A node more: listed, and its daemon started."""
        member = self.prepare(mtu=mtu)
        self.write()
        if start:
            member.start(**settings)
        else:
            member.settings |= settings
        return member

    def prepare(self, *, mtu: int = 1500) -> Member:
        """A node more, with nothing started; `write` lists it."""
        number = len(self.members) + 1
        folder = self._folder / f"node-{number}"
        folder.mkdir()
        member = Member(
            self._make_node(mtu=mtu),
            f"node-{number}",
            number,
            folder,
            self._podwired,
            self._make_pod,
        )
        member.settings = {
            "node": member.name,
            "source": {"static": str(self.file)},
            "conflist": {"path": str(member.conflist)},
            "journal": {"path": str(folder / "journal.jsonl")},
        }
        self.members.append(member)
        return member

    def write(self, **changes: Mapping[str, object] | None) -> None:
        """Write the list; changes by name of node, None to leave one out ("_" for "-")."""
        nodes = []
        for m in self.members:
            change = changes.get(m.name.replace("-", "_"), {})
            if change is not None:
                nodes.append(
                    {"name": m.name, "addresses": m.addresses, "podCIDRs": m.cidrs, **change}
                )
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"nodes": nodes}, indent=1))
        fresh.rename(self.file)

    def settle(self) -> None:
        """Wait until every daemon says that all is as it should be."""
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                others = {c for m in self.members if m is not member for c in m.cidrs}
                eventually(partial(member.has_routes, others))
                eventually(member.is_in_sync)


@pytest.fixture
def cluster(
    tmp_path: Path, make_node: MakeNode, podwire_bin: Path, netns: MakeNamespace
) -> Iterator[Cluster]:
    """An empty cluster."""
    podwired = (podwire_bin / "podwire").resolve().with_name("podwired")
    made = Cluster(tmp_path, make_node, podwired, netns)
    yield made
    for member in made.members:
        if member.process is not None:
            member.stop(signal.SIGKILL)


@pytest.fixture
def pair(cluster: Cluster) -> tuple[Member, Member]:
    """Two nodes that reach each other."""
    pair = cluster.join(), cluster.join()
    cluster.settle()
    return pair
