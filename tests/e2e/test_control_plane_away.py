"""A minute without a control plane: pods come, go and reach each other."""

from __future__ import annotations

import itertools
import json
import time
from functools import partial
from typing import Any

import pytest

from tests.e2e.cluster import KubeCluster
from tests.e2e.control_plane import API_SERVICE
from tests.e2e.figures import Figures
from tests.e2e.machine import KUBELET_PORT, STATIC_PODS, Machine
from tests.e2e.pods import addresses_of, is_ready, read, server, url
from tests.e2e.traffic import connection, new_connections
from tests.netns.routing.conftest import eventually
from tests.netns.routing.traffic import Ping
from tests.pytest_netns.namespace import call_in

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]

SECONDS = 60.0


def addresses_on(machine: Machine, name: str) -> list[str]:
    """The addresses of a pod that is ready, as its kubelet has it; none while it is not."""
    pods: Any = json.loads(
        machine.node.ns.call(lambda: read(f"http://127.0.0.1:{KUBELET_PORT}/pods"))
    )
    for pod in pods["items"]:
        if pod["metadata"]["name"] == f"{name}-{machine.name}" and is_ready(pod):
            return addresses_of(pod)
    return []


def come_and_go(machine: Machine, name: str, client: str) -> None:
    """A pod of the kubelet's alone starts, is reached from another node's pod, and ends."""
    place = f"{STATIC_PODS}/{name}.json"
    machine.write(place, server(name))
    eventually(lambda: len(addresses_on(machine, name)) == 2)
    addresses = addresses_on(machine, name)
    for address in addresses:
        eventually(partial(answer, client, address, name))
    assert set(addresses) <= set(allocated(machine))
    machine.run("rm", place)
    eventually(lambda: set(addresses).isdisjoint(allocated(machine)))


def answer(client: str, address: str, name: str) -> object:
    """True when a server answers a pod with that name."""
    try:
        got = call_in(client, lambda: read(url(address)))
    except OSError as error:  # a container that has started does not serve yet
        return error
    return got == name or got


def allocated(machine: Machine) -> list[str]:
    """All addresses that podwire gave to pods of a machine."""
    text = machine.in_daemon("podwire-ipam", "list", "-o", "json")
    return [entry["address"] for entry in json.loads(text)]


def test_pods_come_and_go_without_a_control_plane(
    cluster: KubeCluster, servers: dict[str, list[str]], figures: Figures
) -> None:
    plane, (one, two, _) = cluster.plane, cluster.machines
    here, there = (m.namespace_of(servers[m.name][0]) for m in (one, two))
    with plane.away():
        ping = Ping(here, servers[two.name][0])
        with (
            connection(here, there, servers[two.name][0]) as kept,
            new_connections(here, url(servers[two.name][1])) as new,
        ):
            until = time.monotonic() + SECONDS
            numbers = itertools.count(1)
            while time.monotonic() < until:
                number = next(numbers)
                come_and_go(two, f"churn-{number}", here)
            for machine in cluster.machines:
                [lost] = [t for t in machine.troubles() if "the last good state is in use" in t]
                assert f"the Kubernetes API at https://{API_SERVICE}:443 cannot be reached" in lost
        assert ping.lost() == 0
    for requests in (kept, new):
        assert requests.failed == []
        assert requests.answered > 100
    figures.add(f"pods that came and went in {SECONDS:.0f} s without a control plane", number, "")
    plane.await_ready("node", "--all")
    for machine in cluster.machines:
        eventually(lambda m=machine: m.troubles() == [] or m.troubles())  # type: ignore[misc]
    plane.kubectl("apply", "-f", "-", stdin=server("after", two.name))
    plane.await_ready("pod", "after")
    plane.kubectl("delete", "pod", "after", "--wait")
