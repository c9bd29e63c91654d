"""Daemons are replaced, by others of their version, by newer and by older ones, under traffic."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.apiserver import MANIFEST
from tests.e2e.cluster import KubeCluster
from tests.e2e.figures import METRICS, Figures
from tests.e2e.images import IMAGE, NEXT, NEXT_VERSION, make_next
from tests.e2e.machine import Machine
from tests.e2e.pods import read, server, url
from tests.e2e.traffic import connection, new_connections
from tests.netns.routing.traffic import Ping

pytestmark = [pytest.mark.needs("kubernetes", "podman"), pytest.mark.timeout(900)]

SHIM = "/opt/cni/bin/podwire"
PAUSE = 4.0
"""Seconds from some pods to the next ones."""
STEPS = ("restart", "upgrade", "downgrade")


@pytest.fixture(scope="module")
def updatable(cluster: KubeCluster, tmp_path_factory: pytest.TempPathFactory) -> KubeCluster:
    """The cluster, with the next version's image on all nodes."""
    archive = make_next(tmp_path_factory.mktemp("next"))
    for machine in cluster.machines:
        machine.load([archive])
    return cluster


def apply(cluster: KubeCluster, step: str) -> None:
    """Begin a step."""
    if step == "restart":
        cluster.plane.kubectl("-n", "podwire", "rollout", "restart", "daemonset", "podwired")
        return
    image = NEXT if step == "upgrade" else IMAGE
    cluster.plane.kubectl("apply", "-f", "-", stdin=MANIFEST.read_text().replace(IMAGE, image))


def version(machine: Machine) -> str:
    """The version of a machine's daemon, as it says itself."""
    text = machine.node.ns.call(lambda: read(f"http://127.0.0.1:{METRICS}/metrics"))
    [line] = [line for line in text.splitlines() if line.startswith("podwire_info{")]
    return line.partition('version="')[2].partition('"')[0]


@contextmanager
def pods_starting(cluster: KubeCluster, step: str) -> Iterator[list[str]]:
    """Pods start on every node, again and again; their names."""
    names: list[str] = []
    end = threading.Event()

    def start() -> None:
        for number in itertools.count(1):
            made = {f"{step}-{number}-{m.name}": m.name for m in cluster.machines}
            names.extend(made)
            cluster.plane.kubectl(
                "create", "-f", "-", stdin="\n---\n".join(map(server, made, made.values()))
            )
            if end.wait(PAUSE):
                return

    work = threading.Thread(target=start)
    work.start()
    try:
        yield names
    finally:
        end.set()
        work.join()


@pytest.mark.parametrize("step", STEPS)
def test_daemons_are_replaced_under_traffic(
    updatable: KubeCluster, servers: dict[str, list[str]], figures: Figures, step: str
) -> None:
    plane, (one, two, _) = updatable.plane, updatable.machines
    here, there = (m.namespace_of(servers[m.name][0]) for m in (one, two))
    first, second = servers[two.name]
    was = {version(m) for m in updatable.machines}
    with pods_starting(updatable, step) as names:
        pings = Ping(here, first), Ping(here, second)
        with (
            connection(here, there, first) as kept,
            new_connections(here, url(first)) as new,
            new_connections(here, url(second)) as new6,
        ):
            apply(updatable, step)
            words = ("rollout", "status", "daemonset", "podwired", "--timeout=170s")
            plane.kubectl("-n", "podwire", *words)
        assert [ping.lost() for ping in pings] == [0, 0]
    for requests in (kept, new, new6):
        assert requests.failed == []
        assert requests.answered > 100
    figures.add(f"{step}: longest request of an old connection", 1e3 * kept.longest, "ms")
    longest = max(new.longest, new6.longest)
    figures.add(f"{step}: longest request of a new connection", 1e3 * longest, "ms")
    plane.await_ready("pod", *names)
    refused = plane.kubectl(
        "get", "events", "--field-selector", "reason=FailedCreatePodSandBox", "-o", "name"
    ).split()
    again = {name.partition(".")[0] for name in refused if f"/{step}-" in name}
    figures.add(f"{step}: pods that started meanwhile", len(names), "")
    figures.add(f"{step}: of them those that the kubelet tried more than once", len(again), "")
    plane.kubectl("delete", "pod", *names, "--wait")

    versions = {version(m) for m in updatable.machines}
    shims = {m.run("tail", "-c", str(len(NEXT_VERSION)), SHIM) for m in updatable.machines}
    if step == "upgrade":
        assert versions == {NEXT_VERSION}
        assert shims == {NEXT_VERSION}
    else:
        assert versions == (was if step == "restart" else {IMAGE.rpartition(":")[2]})
        assert NEXT_VERSION not in shims


def test_nothing_of_the_update_is_left(updatable: KubeCluster) -> None:
    for machine in updatable.machines:
        listed = machine.run("ls", "-A", str(Path(SHIM).parent)).split()
        assert sorted(listed) == ["loopback", "podwire", "podwire-ipam"]
