"""A Kubernetes source as the daemon of one node has it, with its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from daemon.config import LAST_KNOWN
from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.model import Node, Snapshot
from daemon.sources.kubernetes.client import KubernetesClient
from daemon.sources.remote import Client, RemoteSource
from tests.cluster.apiserver import make_kubeconfig

DEADLINE = 60.0
CLUSTER = ("10.244.0.0/16", "fd00:10:244::/48")


def eventually(check: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until the check is True; AssertionError with its last result."""
    until = time.monotonic() + seconds
    while (last := check()) is not True:
        assert time.monotonic() < until, f"did not become true: {last!r}"
        time.sleep(0.02)


class Notes(Log):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__("debug")
        self.lines: list[str] = []

    def _write(self, level: str, text: str, fields: Mapping[str, object]) -> None:
        self.lines.append(f"{level} {text} {dict(fields)}")

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)


@dataclass
class Follower:
    """One node's source; `start` and `stop` as often as you like, its folder stays.

    issue: makes a token for it.
    """

    name: str
    address: tuple[str, int]
    ca: Path
    folder: Path
    issue: Callable[[], str]
    cluster: Sequence[str] = CLUSTER
    log: Notes = field(default_factory=Notes)
    latest: Snapshot | None = None
    source: RemoteSource | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.token = self.folder / "token"
        host, port = self.address
        server = f"https://{host}:{port}"
        self.kubeconfig = make_kubeconfig(self.folder, server, self.ca, self.token)

    @property
    def known(self) -> Path:
        """The file of the last known state."""
        return self.folder / LAST_KNOWN

    def settings(self) -> KubernetesSettings:
        """Where the API is."""
        if not self.cluster:  # they are found in the API
            return KubernetesSettings(kubeconfig=self.kubeconfig)
        ranges = tuple(map(ip_network, self.cluster))
        return KubernetesSettings(cluster_cidrs=ranges, kubeconfig=self.kubeconfig)

    def client(self) -> Client:
        """The client of the API."""
        return KubernetesClient(self.settings(), node=self.name, log=self.log)

    def start(self) -> Follower:
        """Begin, with short pauses after failures."""
        if not self.token.exists():
            self.rotate()
        self.latest = None
        client = self.client()
        client.pauses = 0.2, 1.0
        self.source = RemoteSource(client, last_known=self.known, log=self.log)
        return self

    def rotate(self, token: str = "") -> None:
        """Another token, as the kubelet renews it: the file is replaced."""
        fresh = self.token.with_suffix(".new")
        fresh.write_text(token or self.issue())
        fresh.rename(self.token)

    def stop(self) -> None:
        """End it. Repeatable."""
        if self.source:
            self.source.close()
        self.source = None

    @property
    def running(self) -> RemoteSource:
        """The source."""
        assert self.source is not None
        return self.source

    @property
    def fault(self) -> str:
        return self.running.fault

    def poll(self) -> Snapshot | None:
        """The newest snapshot that there was so far."""
        self.latest = self.running.poll() or self.latest
        return self.latest

    def nodes(self) -> dict[str, Node]:
        """Nodes of the newest snapshot, by name."""
        snapshot = self.poll()
        return {node.name: node for node in snapshot.nodes} if snapshot else {}

    def routes(self) -> dict[str, list[str]]:
        """Pod CIDRs of all nodes but its own, by name."""
        found = self.nodes()
        return {n: list(map(str, found[n].pod_cidrs)) for n in sorted(found) if n != self.name}

    def await_routes(self, wanted: Mapping[str, list[str]]) -> None:
        """Wait until these are the other nodes' pod CIDRs, and no fault is reported."""
        eventually(lambda: self.routes() == wanted or self.describe())
        eventually(lambda: self.fault == "" or self.describe())

    def await_fault(self, *words: str) -> None:
        """Wait until the fault contains these words."""
        eventually(lambda: all(word in self.fault for word in words) or self.describe())

    def describe(self) -> tuple[object, ...]:
        """Routes, fault and last log lines, for a message of failure."""
        return self.routes(), self.fault, self.log.lines[-8:]
