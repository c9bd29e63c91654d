"""An etcd for the module, and nodes that are sources without a daemon around them."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.model import Node, Snapshot
from daemon.sources.etcd.client import EtcdClient
from daemon.sources.remote import RemoteSource
from tests.netns.etcd.server import PREFIX, Etcd
from tests.netns.routing.conftest import eventually
from tests.pytest_netns.namespace import Namespace
from tests.pytest_netns.plugin import Registry

ADDRESS = "192.0.2.1"


def house(ns: Namespace) -> None:
    """Give a namespace an address of its own."""
    ns.ip_batch(f"link set lo up\naddress add {ADDRESS}/32 dev lo\n")


@pytest.fixture(scope="module")
def etcd(netns_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One member."""
    ns = netns_registry.make("etcd")
    house(ns)
    made = Etcd(ns, ADDRESS, tmp_path_factory.mktemp("etcd"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        ns.remove()


@pytest.fixture
def prefix(etcd: Etcd, request: pytest.FixtureRequest) -> str:
    """Where a test has its keys, beside those of other tests."""
    return f"{PREFIX}/{request.node.name.partition('[')[0]}"


@dataclass
class Seat:
    """A node: its settings, its folder, its source while it runs, and its snapshots."""

    ns: Namespace
    name: str
    settings: dict[str, Any]
    folder: Path
    source: RemoteSource | None = None
    snapshot: Snapshot | None = None
    seen: list[Snapshot] = field(default_factory=list)
    _client: Any = None

    def start(self, **changes: object) -> "Seat":
        """Start the source, in the namespace of etcd."""
        self.settings |= changes
        self.folder.mkdir(exist_ok=True)
        self.snapshot = None
        self.source = self.ns.call(self._open)
        return self

    def _open(self) -> RemoteSource:
        # The thread that the source starts stays in this thread's namespace.
        self._client = self.client()
        self._client.pauses = 0.2, 1.0
        return RemoteSource(self._client, last_known=self.folder / "cluster.json", log=Log())

    def client(self) -> Any:
        """What speaks to etcd, without a source around it."""
        return EtcdClient(
            settings_of(self.settings), node=self.name, data_dir=self.folder, log=Log()
        )

    @property
    def endpoint(self) -> str:
        """The member that the source speaks to."""
        return str(self._client._gateway.endpoint)

    def stop(self) -> None:
        """End the source in order. Repeatable."""
        if self.source is not None:
            self.source.close()
            self.source = None

    def leave(self) -> list[str]:
        """What `podwirectl cleanup` does."""
        self.stop()
        return list(self.ns.call(lambda: self.client().leave()))

    def poll(self) -> Snapshot | None:
        """The newest snapshot, whether it is new or not."""
        assert self.source is not None
        fresh = self.source.poll()
        if fresh is not None:
            self.snapshot = fresh
            self.seen.append(fresh)
        return self.snapshot

    @property
    def fault(self) -> str:
        assert self.source is not None
        return self.source.fault

    def nodes(self) -> dict[str, Node]:
        """All nodes that it knows."""
        snapshot = self.poll()
        return {node.name: node for node in snapshot.nodes} if snapshot else {}

    def subnets(self, name: str = "") -> list[str]:
        """Of a node, or its own."""
        node = self.nodes().get(name or self.name)
        return [str(p) for p in node.pod_cidrs] if node else []

    def knows(self, *names: str) -> object:
        """True where these are all nodes that it knows, and nothing is wrong."""
        nodes = self.nodes()
        well = self.has_received and not self.fault
        return (well and set(nodes) == set(names)) or (set(nodes), self.fault)

    def is_lost(self) -> object:
        """True where etcd is away, and the fault describes it."""
        return " (since 20" in self.fault or self.fault

    @property
    def has_received(self) -> bool:
        """Whether etcd sent anything; else it knows what an earlier source knew."""
        assert self.source is not None
        return self.source.activity.last_received > 0

    def settle(self) -> list[str]:
        """Wait until its subnets are registered; these."""
        eventually(self._is_settled)
        return self.subnets()

    def _is_settled(self) -> object:
        well = self.has_received and not self.fault
        return (well and bool(self.subnets())) or (self.has_received, self.fault)


def settings_of(keys: dict[str, Any]) -> EtcdSettings:
    """`source.etcd` as the daemon gets it; a lease may be shorter than the file allows."""
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in keys.items() if v}
    seconds = given.pop("leaseSeconds", 86400)
    return EtcdSettings.model_validate(given).model_copy(update={"lease_seconds": seconds})


MakeSeat = Callable[..., Seat]


def make_seats(etcd: Etcd, prefix: str, folder: Path) -> Iterator[MakeSeat]:
    """Makes nodes of a cluster, and stops them at the end."""
    seats: list[Seat] = []
    numbers = itertools.count(1)

    def make(**changes: object) -> Seat:
        number = next(numbers)
        address = f"192.0.2.{10 + number}"
        settings = etcd.settings(**{"prefix": prefix, "addresses": [address], **changes})
        seat = Seat(etcd.ns, f"node-{number}", settings, folder / f"node-{number}")
        seats.append(seat)
        return seat

    yield make
    for seat in seats:
        seat.stop()


@pytest.fixture
def make_seat(etcd: Etcd, prefix: str, tmp_path: Path) -> Iterator[MakeSeat]:
    """Makes nodes."""
    yield from make_seats(etcd, prefix, tmp_path)
