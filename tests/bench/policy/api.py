"""Policies of a large cluster: what a node's watches cost the API server, and what its daemon does.

Of 250,000 pods 10,000 are there: those of 20 of 500 namespaces, whole. A node's watches depend on
the size of its pods' namespaces, not on how many others there are, and are measured as they are; a
watch of all pods sends as much for each pod, so its figures are multiplied by 25. All namespaces
and policies are there.

An hour's changes: each pod is replaced once in eight hours (7 events), its readiness changes once
in ten, its labels once in a hundred; each policy and each namespace changes once a day.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from daemon.log import Log
from daemon.policy.kubernetes_source import KubernetesSource
from daemon.policy.model import Facts
from daemon.policy.saved_facts import saved_path
from tests.bench.kubernetes.arrival import KubernetesMember
from tests.bench.kubernetes.fleet import CLUSTER_CIDRS, make_node, open_api
from tests.bench.lineup import Lineup
from tests.bench.policy.names import (
    ALL,
    BYTES,
    CHURN_RATE,
    CHURNED,
    EVENTS,
    FREE,
    LABEL,
    LIMITED,
    POLICY,
    SELECTED,
    UNLIMITED,
    WRITTEN,
    in_cluster,
    memory,
)
from tests.bench.policy.population import (
    APPS,
    DNS_SPACE,
    PODS,
    SPACES,
    Placed,
    apply,
    create,
    label,
    make_policy,
    make_space,
    place_pods,
    policies_of,
    remove,
    replace,
    space_of,
    spread,
    status_of,
    write_status,
)
from tests.bench.results import PEER, PODWIRE, Figure, Results
from tests.bench.rounds import Say, in_turns
from tests.bench.routing.cluster import find_daemon
from tests.bench.routing.fleet import Listed, list_node
from tests.bench.routing.member import Member, wait_for
from tests.bench.sizes import Sizes
from tests.bench.world import Host
from tests.cluster.apiserver import ApiServer, StandIn
from tests.cluster.follower import Follower
from tests.cluster.rest import Object, Rest, place_of
from tests.cluster.wire import Wire

LOADED, OWN_SPACES = 20, 10
_NODE = 60_001
_LIFE, _FLIP, _RELABEL, _DAY = 8, 10, 100, 24  # hours
_IDLE = 125.0  # seconds; the API server sends a bookmark each minute
_CALM = 2.0
_PATIENCE = 300.0
_GAP = 0.5
"""Seconds between two changes: each finds the daemon at rest."""
_NEWGEN = 10 << 8 | 15  # linux/netfilter/nf_tables.h: a transaction is complete
_CHURN, _CHURN_SECONDS = 100, 15  # pods a second


@dataclass(frozen=True, slots=True)
class Scene:
    """The API server, the node, and the pods that are there."""

    api: ApiServer
    host: Host
    own: Listed
    pods: Sequence[Placed]
    results: Results
    sizes: Sizes
    say: Say

    @property
    def kind(self) -> str:
        """Which API server it is."""
        return in_cluster(self.api.kind)

    def add(self, what: str, unit: str, *samples: float, contender: str = PODWIRE) -> None:
        """Add a figure."""
        self.results.add(Figure(POLICY, self.kind, what, unit), contender, *samples)

    def own_pods(self, app: int) -> list[Placed]:
        """The node's pods of an application."""
        return [
            p for p in self.pods if p.node == self.own.name and ("app", f"app-{app}") in p.labels
        ]

    def peers(self, app: int, space: int = 0) -> list[Placed]:
        """The pods of other nodes of an application."""
        return [
            p for p in self.pods
            if p.space == space_of(space) and ("app", f"app-{app}") in p.labels
            and p.node != self.own.name
        ]  # fmt: skip


def policies_of_a_cluster(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """Everything that needs an API server.

    Pods go and come on the stand-in: a real one is busier with them than the daemon is.
    """
    with (
        open_api(lineup.world) as api,
        _scene(lineup, api, results, sizes, say) as scene,
        _daemon(lineup, scene) as member,
    ):
        scene.add(memory(UNLIMITED), "MB", member.daemon.pss())
        _limit(scene)
        scene.add(memory(LIMITED), "MB", member.daemon.pss())
        _measure_costs(scene)
        _name_everybody(scene)
        scene.add(memory(ALL), "MB", member.daemon.pss())
        _measure_arrival(scene)
        _measure_adds(lineup, scene, member)
    with (
        open_api(lineup.world, StandIn) as api,
        _scene(lineup, api, results, sizes, say) as scene,
        _daemon(lineup, scene) as member,
    ):
        _limit(scene)
        _name_everybody(scene)
        _measure_churn(scene, member)


@contextmanager
def _scene(
    lineup: Lineup, api: ApiServer, results: Results, sizes: Sizes, say: Say
) -> Iterator[Scene]:
    """Namespaces and pods, without policies."""
    with lineup.world.host(POLICY) as host:
        own = list_node(_NODE, host.node.address(4))
        api.admin.ask("POST", place_of("Node"), make_node(own)).expect(201)
        pods = place_pods(LOADED, own.name, OWN_SPACES)
        say(f"{POLICY}: {len(pods):,} pods on {api.kind}")
        spread(api, apply, [make_space(n) for n in (DNS_SPACE, *map(space_of, range(SPACES)))])
        spread(api, create, pods)
        yield Scene(api, host, own, pods, results, sizes, say)


def _limit(scene: Scene) -> None:
    """All policies but the one that names everybody."""
    policies = [p for n in range(SPACES) for p in policies_of(space_of(n))]
    scene.say(f"{POLICY}: {len(policies):,} policies on {scene.api.kind}")
    spread(scene.api, apply, policies)
    _await_policies(scene, len(policies))


def _name_everybody(scene: Scene) -> None:
    """One of the node's pods takes connections of all pods that are there."""
    everybody: list[Object] = [{"from": [{"namespaceSelector": {}}]}]
    selected = {"matchLabels": {"app": "app-3"}}
    made = make_policy(space_of(0), "everybody", podSelector=selected, ingress=everybody)
    apply(scene.api.admin, made)
    _await_policies(scene, 2 * SPACES + 1)


@contextmanager
def _daemon(lineup: Lineup, scene: Scene) -> Iterator[Member]:
    """The node's daemon, and those of its pods that policies select."""
    member = KubernetesMember(scene.host, scene.own, scene.api, [find_daemon(lineup)])
    member.start()
    try:
        selected = [p for n in (1, 2, 3) for p in scene.own_pods(n)]
        made = lineup.world.pods(f"{POLICY}-{scene.host.label}", len(selected))
        for pod, placed in zip(made, selected, strict=True):
            member.attach(pod, lineup.programs.podwire, args=_names(placed))
        time.sleep(_CALM)
        yield member
    finally:
        member.end()


def _names(pod: Placed) -> str:
    return f"K8S_POD_NAMESPACE={pod.space};K8S_POD_NAME={pod.name}"


def _await_policies(scene: Scene, count: int) -> None:
    """Wait until the daemon has enforced and saved so many."""
    saved = saved_path(scene.host.work_dir / "data")

    def is_there() -> bool:
        return saved.exists() and saved.read_bytes().count(b'"NetworkPolicy"') == count

    wait_for("the policies", is_there, gap=0.2, most=_PATIENCE)
    time.sleep(_CALM)


# -- what the API server sends


class Learner:
    """A node's source of policies, without the rest of the daemon."""

    def __init__(self, scene: Scene, wire: Wire) -> None:
        api, folder = scene.api, scene.host.work_dir / "learner"
        follower = Follower(
            "learner", wire.address, api.authority.ca, folder, lambda: api.issue("learner"),
            cluster=CLUSTER_CIDRS,
        )  # fmt: skip
        follower.rotate()
        self.source = KubernetesSource(follower.settings(), scene.own.name, Log("error"))
        self.facts = Facts()
        self._done = False
        self._thread = threading.Thread(target=self._learn, daemon=True)

    def __enter__(self) -> Learner:
        self.source.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()
        self.source.close()

    def _learn(self) -> None:
        poll = select.poll()
        poll.register(self.source.fileno(), select.POLLIN)
        while not self._done:
            if poll.poll(100):
                self.facts = self.source.take() or self.facts


class AllPods:
    """What an agent receives that watches all pods."""

    def __init__(self, api: ApiServer, wire: Wire) -> None:
        self.events = 0
        self._client: Rest = api.client(wire, api.admin_token)
        listed = api.admin.ask("GET", place_of("Pod"), limit=1).expect(200)
        self._version = listed["metadata"]["resourceVersion"]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        words = {"resourceVersion": self._version, "allowWatchBookmarks": "true"}
        with closing(self._client.watch(place_of("Pod"), timeout=3600, **words)) as events:  # type: ignore[type-var]
            for event in events:
                self.events += event["type"] != "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Received:
    """Events and bytes of the source, and of a watch of all pods; seconds."""

    time: float
    events: int
    size: int
    their_events: int
    their_size: int

    def since(self, other: Received) -> Received:
        """What came after the other one."""
        return Received(
            self.time - other.time,
            self.events - other.events,
            self.size - other.size,
            self.their_events - other.their_events,
            self.their_size - other.their_size,
        )


def _measure_costs(scene: Scene) -> None:
    api, say = scene.api, scene.say
    with api.wire() as wire, api.wire() as other, Learner(scene, wire) as learner:
        theirs = AllPods(api, other)

        def read() -> Received:
            found = learner.source.activity.events, wire.down, theirs.events, other.down
            return Received(time.monotonic(), *found)

        wait_for("what the policies name", lambda: len(learner.facts.pods) > 10 * 49)
        time.sleep(_CALM)
        scene.add("first lists: received by a node", "kB", wire.down / 1e3)
        scene.add("connections of a node", "", wire.connections)
        say(f"{POLICY}: nothing happens for {_IDLE:g} s")
        began = read()
        time.sleep(_IDLE)
        idle = read().since(began)
        say(f"{POLICY}: {scene.sizes.policy_hours:g} h of changes")
        began = read()
        _change(scene, scene.sizes.policy_hours)
        _settle(read)
        busy = read().since(began)
    _report_costs(scene, idle, busy)


def _settle(read: Callable[[], Received]) -> None:
    """Wait until nothing comes any more."""
    before = read()
    while True:
        time.sleep(_CALM)
        now = read()
        if (now.events, now.their_events) == (before.events, before.their_events):
            return
        before = now


def _change(scene: Scene, hours: float) -> None:
    """What happens in so many hours."""
    api, chance = scene.api, random.Random(7)

    def some(count: int, each: float) -> list[int]:
        return chance.sample(range(count), round(count * hours / each))

    pods = scene.pods
    spread(api, replace, [pods[n] for n in some(len(pods), _LIFE)])
    for ready in (False, True):
        spread(
            api,
            lambda client, pod, up=ready: write_status(client, pod, status_of(pod, ready=up)),  # type: ignore[misc]
            [pods[n] for n in some(len(pods), _FLIP * 2)],
        )
    spread(
        api,
        lambda client, pod: label(client, pod, note="changed"),
        [pods[n] for n in some(len(pods), _RELABEL)],
    )
    changed = [policies_of(space_of(n), 1)[n % 2] for n in some(SPACES, _DAY / 2)]
    spaces = [make_space(space_of(n)) for n in some(SPACES, _DAY)]
    for each in spaces:
        each["metadata"]["labels"]["note"] = "changed"
    spread(api, apply, [*changed, *spaces])


def _report_costs(scene: Scene, idle: Received, busy: Received) -> None:
    hours, scale = scene.sizes.policy_hours, PODS / len(scene.pods)

    def of_an_hour(size: int, quiet: int) -> float:
        rate = quiet / idle.time
        return rate * 3600 + max(0.0, size - rate * busy.time) / hours

    def of_all_pods(size: int, quiet: int) -> float:
        # Bookmarks are the same, however many pods there are.
        rate = quiet / idle.time
        return rate * 3600 + max(0.0, size - rate * busy.time) / hours * scale

    scene.add(EVENTS, "", busy.events / hours)
    scene.add(EVENTS, "", busy.their_events / hours * scale, contender=PEER)
    scene.add(BYTES, "kB", of_an_hour(busy.size, idle.size) / 1e3)
    scene.add(BYTES, "kB", of_all_pods(busy.their_size, idle.their_size) / 1e3, contender=PEER)


# -- what the daemon does


class Transactions:
    """Waits for transactions of a node's nftables."""

    def __init__(self, host: Host) -> None:
        self._socket = host.call(_subscribe)

    def wait_after(self, do: Callable[[], object]) -> float:
        """Milliseconds from before it is done to the next transaction."""
        self._drain()
        began = time.monotonic()
        do()
        while not self._is_complete():
            pass
        return (time.monotonic() - began) * 1e3

    def _is_complete(self) -> bool:
        data = self._socket.recv(1 << 17)
        place, found = 0, False
        while place < len(data):
            length, kind = struct.unpack_from("=IH", data, place)
            found |= kind == _NEWGEN
            place += (length + 3) & ~3
        return found

    def _drain(self) -> None:
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(1 << 17)

    def close(self) -> None:
        """End."""
        self._socket.close()


def _subscribe() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12)
    made.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    made.bind((0, 1 << 6))  # NFNLGRP_NFTABLES
    made.settimeout(30)
    return made


def _measure_arrival(scene: Scene) -> None:
    api, count = scene.api, scene.sizes.policy_changes
    peers = scene.peers(0)
    scene.say(f"{POLICY}: {count} changes")
    with closing(Transactions(scene.host)) as kernel:
        for number in range(count):
            peer, name = peers[number // 2 % len(peers)], ("other", "app-0")[number % 2]
            time.sleep(_GAP)
            milliseconds = kernel.wait_after(
                lambda p=peer, n=name: label(api.admin, p, app=n)  # type: ignore[misc]
            )
            scene.add(LABEL, "ms", milliseconds)
            policy = policies_of(space_of(0), 2 + number)[0]
            time.sleep(_GAP)
            scene.add(WRITTEN, "ms", kernel.wait_after(lambda p=policy: apply(api.admin, p)))  # type: ignore[misc]


def _measure_adds(lineup: Lineup, scene: Scene, member: Member) -> None:
    """ADDs of a pod that policies select, and of one that none does, in turns."""
    plugin = lineup.programs.podwire
    pods = lineup.world.pods(f"{POLICY}-adds", 2)
    [selected, *_], [other, *_] = scene.own_pods(1), scene.own_pods(4)
    cases = [*zip((SELECTED, FREE), (selected, other), pods, strict=True)]
    scene.say(f"{POLICY}: ADDs")
    member.detach(lineup.world.pods(f"{POLICY}-{scene.host.label}", 1)[0], plugin)
    for number in range(scene.sizes.policy_changes + 1):
        for what, placed, pod in in_turns(cases, number):
            time.sleep(_GAP)
            began = time.perf_counter()
            member.attach(pod, plugin, args=_names(placed))
            milliseconds = (time.perf_counter() - began) * 1e3
            member.detach(pod, plugin)
            if number:
                scene.add(what, "ms", milliseconds)


def _measure_churn(scene: Scene, member: Member) -> None:
    """Pods of other nodes go and come: CPU of the daemon, its calls of nft included."""
    scene.say(f"{POLICY}: pods go and come")
    pods = [p for app in range(APPS) for p in scene.peers(app, 1)]
    began = time.monotonic()

    def again(client: Rest, turn: tuple[int, Placed]) -> None:
        number, pod = turn
        time.sleep(max(0.0, began + number / _CHURN - time.monotonic()))
        remove(client, pod)
        create(client, pod)

    count = _CHURN * _CHURN_SECONDS
    cpu = member.daemon.cpu()
    spread(scene.api, again, [(n, pods[n % len(pods)]) for n in range(count)])
    seconds = time.monotonic() - began
    used = member.daemon.cpu() - cpu
    scene.add(CHURN_RATE, "", count / seconds)
    scene.add(CHURNED, "% of a core", used / seconds * 100)
