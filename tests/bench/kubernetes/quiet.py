"""What one daemon receives: while nothing changes, and of each change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from tests.bench.kubernetes.fleet import CLUSTER_CIDRS, beat, make_node, network_of
from tests.bench.results import PEER, PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.fleet import Listed, list_node
from tests.bench.routing.member import wait_for
from tests.bench.sizes import PEERS, Sizes
from tests.cluster.apiserver import SPACE, ApiServer
from tests.cluster.follower import Follower
from tests.cluster.rest import Rest, place_of
from tests.cluster.wire import Wire

KUBERNETES = "kubernetes"
EVENTS = "steady state: events an hour"
BYTES = "steady state: received in an hour"
BEATS = 12
"""Reports of a kubelet in an hour to which nothing happens (nodeStatusReportFrequency, 5 min)."""
CHANGES = ("a node joins", "a node leaves", "a known node has another address")
_OWN = 60_000
"""Numbers from here on are of nodes that come and go."""


def received(what: str) -> str:
    """How a change's figure is called."""
    return f"{what}: received by each daemon"


def measure_quiet(
    api: ApiServer, results: Results, sizes: Sizes, say: Say, folder: Path, case: str
) -> None:
    """The source and a watch of Nodes, side by side, while kubelets report."""
    own = list_node(_OWN)
    api.admin.ask("POST", place_of("Node"), make_node(own)).expect(201)
    beating = [list_node(1 + number) for number in range(sizes.beats)]
    with api.wire() as wire, api.wire() as other:
        one = Follower(
            own.name,
            wire.address,
            api.authority.ca,
            folder / "quiet",
            lambda: api.issue(own.name),
            cluster=CLUSTER_CIDRS,
        )
        try:
            one.start()
            wait_for("the source's snapshot", lambda: len(one.nodes()) > PEERS and not one.fault)
            results.add(
                Figure(KUBERNETES, case, "a first list: received", "kB"), PODWIRE, wire.down / 1e3
            )
            say(f"{KUBERNETES}: quiet for {sizes.quiet:g} s")
            _one_quiet(api, results, sizes, case, one, wire, NodeWatch(api, other, beating))
            say(f"{KUBERNETES}: bytes of changes")
            for what, change in _changes(api, sizes.changes_counted).items():
                _one_change(results, case, what, one, wire, change)
        finally:
            one.stop()


class NodeWatch:
    """What daemons do that watch Nodes: one of each object, then its every report."""

    def __init__(self, api: ApiServer, wire: Wire, nodes: Sequence[Listed]) -> None:
        self.nodes, self.wire = nodes, wire
        for node in nodes:
            api.admin.ask("POST", place_of("Node"), make_node(node)).expect(201)
        listed = api.admin.ask("GET", place_of("Node")).expect(200)
        self.count, self.size = 0, 0
        self._version = listed["metadata"]["resourceVersion"]
        self._client: Rest = api.client(wire, api.admin_token)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        words = {"resourceVersion": self._version, "allowWatchBookmarks": "true"}
        with closing(self._client.watch(place_of("Node"), timeout=3600, **words)) as events:  # type: ignore[type-var]
            for event in events:
                if event["type"] == "MODIFIED":
                    self.count += 1
                if self.count == len(self.nodes):
                    return


def _one_quiet(
    api: ApiServer,
    results: Results,
    sizes: Sizes,
    case: str,
    one: Follower,
    wire: Wire,
    nodes: NodeWatch,
) -> None:
    time.sleep(1)
    events, down, began = one.running.activity.events, wire.down, time.monotonic()
    theirs = nodes.wire.down
    for number, node in enumerate(nodes.nodes):
        beat(api, place_of("Node", "", node.name), number)
    wait_for("the reports of all kubelets", lambda: nodes.count == len(nodes.nodes))
    each = (nodes.wire.down - theirs) / len(nodes.nodes)
    time.sleep(max(0.0, began + sizes.quiet - time.monotonic()))
    hours = (time.monotonic() - began) / 3600
    mine = one.running.activity.events - events
    for what, unit, podwire, reference in (
        (EVENTS, "", mine / hours, PEERS * BEATS),
        (BYTES, "kB", (wire.down - down) / hours / 1e3, each * PEERS * BEATS / 1e3),
    ):
        figure = Figure(KUBERNETES, f"{case}; reference: a watch of Nodes", what, unit)
        results.add(figure, PODWIRE, podwire)
        results.add(figure, PEER, reference)
    each_report = Figure(KUBERNETES, f"{case}; reference: a watch of Nodes", "one report", "bytes")
    results.add(each_report, PEER, each)


Change = tuple[Callable[[int], None], int]


def _changes(api: ApiServer, count: int) -> dict[str, Change]:
    coming = [list_node(_OWN + 1 + n) for n in range(count)]
    moving = [list_node(PEERS - n) for n in range(min(count, 10))]
    for node in moving:
        api.admin.ask("POST", place_of("Node"), make_node(node)).expect(201)

    def join(number: int) -> None:
        api.admin.apply(network_of(coming[number]), "podwired").expect(201)

    def leave(number: int) -> None:
        api.remove("NodeNetwork", coming[number].name, SPACE)

    def move(number: int) -> None:
        address = f"198.19.250.{number + 1}"
        report_address(api, moving[number], address)
        publish_address(api, moving[number], address)

    return dict(zip(CHANGES, ((join, count), (leave, count), (move, len(moving))), strict=True))


def report_address(api: ApiServer, node: Listed, address: str) -> None:
    """Another address of a node, as its kubelet reports it."""
    found = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": node.name}]
    path = place_of("Node", "", node.name)
    kind = "application/merge-patch+json"
    patch = {"status": {"addresses": found}}
    api.admin.ask("PATCH", f"{path}/status", patch, kind=kind).expect(200)


def publish_address(api: ApiServer, node: Listed, address: str) -> None:
    """The same, as its daemon publishes it."""
    made = network_of(node)
    made["spec"]["addresses"] = [address]
    api.admin.apply(made, "podwired").expect(200)


def _one_change(
    results: Results, case: str, what: str, one: Follower, wire: Wire, change: Change
) -> None:
    do, count = change
    one.nodes()
    snapshots, down = one.running.activity.snapshots, wire.down
    for number in range(count):
        do(number)
        wanted = snapshots + number + 1
        wait_for(f"{what}: the snapshot", lambda n=wanted: one.running.activity.snapshots >= n)  # type: ignore[misc]
    time.sleep(0.2)
    each = (wire.down - down) / count
    results.add(Figure(KUBERNETES, case, received(what), "bytes"), PODWIRE, each)
