"""From an object's change to the kernel, and the memory of the daemon that does it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kernel.diff import Key, key_of
from kernel.model import Entry
from tests.bench.kubernetes.fleet import CLUSTER_CIDRS, make_node, network_of
from tests.bench.kubernetes.quiet import CHANGES, KUBERNETES, publish_address, report_address
from tests.bench.lineup import Lineup
from tests.bench.results import PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.cluster import find_daemon
from tests.bench.routing.fleet import Listed, list_node
from tests.bench.routing.member import Member, wait_for
from tests.bench.routing.watch import Watch
from tests.bench.sizes import PEERS, Sizes
from tests.bench.world import Host
from tests.cluster.apiserver import PORT, SPACE, ApiServer, Request, make_kubeconfig
from tests.cluster.rest import place_of

MEMORY = "podwired, PSS of all its processes"
_FIRST = 61_000
_OWN = 62_000
_GAP = 0.05
"""Seconds between two changes: each finds the daemon at rest."""


def arrived(what: str) -> str:
    """How a change's figure is called."""
    return f"{what}: from before it is written to the kernel's last entry"


class KubernetesMember(Member):
    """A node whose daemon learns of the others from the API."""

    def __init__(
        self, host: Host, own: Listed, api: ApiServer, program: Sequence[str | Path]
    ) -> None:
        super().__init__(host, own.name, Path("/dev/null"), program)
        folder = host.work_dir
        token = folder / "token"
        token.write_text(api.issue(own.name))
        server = f"https://{host.node.underlay.gateway(4)}:{PORT}"
        kubeconfig = make_kubeconfig(folder, server, api.authority.ca, token)
        settings = json.loads(self._config.read_text())
        settings["source"] = {
            "kubernetes": {
                "clusterCIDRs": [*CLUSTER_CIDRS],
                "kubeconfig": str(kubeconfig),
            }
        }
        self._config.write_text(json.dumps(settings))


def measure_arrival(
    lineup: Lineup, api: ApiServer, results: Results, sizes: Sizes, say: Say, case: str
) -> None:
    """One daemon among thousands of nodes; others join, leave and move."""
    with lineup.world.host(PODWIRE) as host:
        own = list_node(_OWN, host.node.address(4))
        api.admin.ask("POST", place_of("Node"), make_node(own)).expect(201)
        member = KubernetesMember(host, own, api, [find_daemon(lineup)])
        before = len(api.requests())
        member.start()
        try:
            peers = len(api.admin.ask("GET", place_of("NodeNetwork", SPACE)).expect(200)["items"])
            say(f"{KUBERNETES}: {peers:,} peers")
            wait_for(
                f"in sync: {member.status()} {member.daemon.log()}",
                lambda: (
                    member.status().get("peers", 0) >= PEERS
                    and member.status()["wanted"] == member.status()["inSync"]
                ),
            )
            seconds = time.time() - _listed(api.requests()[before:])
            figure = Figure(KUBERNETES, case, "from the daemon's list to the last entry")
            results.add(figure, PODWIRE, seconds * 1e3)
            time.sleep(2)
            _measure_changes(api, host, results, sizes.arrivals, case, say)
            results.add(Figure(KUBERNETES, case, MEMORY, "MB"), PODWIRE, member.daemon.pss())
        finally:
            member.end()


def _listed(requests: Sequence[Request]) -> float:
    """When the daemon asked for all objects, after its random wait; seconds since the epoch."""
    return next(r.time for r in requests if r.verb == "list" and "limit=1" not in r.uri)


def _measure_changes(
    api: ApiServer, host: Host, results: Results, count: int, case: str, say: Say
) -> None:
    coming = [list_node(_FIRST + number) for number in range(count)]
    moving = [list_node(PEERS // 2 + number) for number in range(min(count, 200))]
    for node in moving:
        api.admin.ask("POST", place_of("Node"), make_node(node)).expect(201)

    def join(node: Listed) -> None:
        api.admin.apply(network_of(node), "podwired").expect(201)

    def leave(node: Listed) -> None:
        api.remove("NodeNetwork", node.name, SPACE)

    def move(node: Listed) -> None:
        publish_address(api, node, _moved(node).address)

    with Watch(host) as watch:
        for what, do, nodes in zip(
            CHANGES, (join, leave, move), (coming, coming, moving), strict=True
        ):
            say(f"{KUBERNETES}: {what}")
            for node in nodes:
                keys = {key_of(entry) for entry in node.entries}
                if do is move:
                    report_address(api, node, _moved(node).address)
                    before, after = set[Entry](node.entries), set[Entry](_moved(node).entries)
                    keys = {key_of(entry) for entry in before ^ after}
                seconds = _measure_one(watch, lambda n=node, act=do: act(n), keys)  # type: ignore[misc]
                results.add(Figure(KUBERNETES, case, arrived(what)), PODWIRE, seconds * 1e3)
                time.sleep(_GAP)


def _moved(node: Listed) -> Listed:
    return Listed(node.name, f"198.19.251.{int(node.address.rpartition('.')[2])}", node.prefix)


def _measure_one(watch: Watch, do: Callable[[], None], keys: set[Key]) -> float:
    seen, began = watch.count, time.monotonic()
    do()
    found: list[float] = []

    def is_done() -> bool:
        changes = watch.changes(seen)
        found[:] = [change.time for change in changes]
        return keys <= {key_of(change.entry) for change in changes}

    wait_for("the change in the kernel", is_done, gap=0.005)
    return max(found) - began
