"""Machines die with everything on them, and others take their places."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.cluster import KubeCluster
from tests.e2e.control_plane import ControlPlane
from tests.e2e.machine import Machine
from tests.e2e.pods import addresses_of, is_ready, server, url
from tests.netns.routing.conftest import DEVICE, eventually

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]


def traces(machine: Machine, *of: str) -> list[str]:
    """What a machine has yet of addresses, prefixes or names: routes, neighbours, FDB, rules."""
    text = [
        machine.run("ip", "route", "show", "table", "all"),
        machine.run("ip", "-6", "route", "show", "table", "all"),
        machine.run("ip", "neigh", "show", "dev", DEVICE),
        machine.run("bridge", "fdb", "show", "dev", DEVICE),
        machine.run("nft", "list", "ruleset"),
        machine.in_daemon("podwirectl", "peers", check=False),
    ]
    lines = "\n".join(text).splitlines()
    return [line for line in lines if any(word in line for word in of)]


def await_forgotten(machine: Machine, *of: str) -> None:
    """Wait until a machine has nothing of them; nodes are saved some time after a change."""
    eventually(lambda: (found := traces(machine, *of)) == [] or found)


def await_pod(plane: ControlPlane, name: str, on: Machine) -> list[str]:
    """Wait until a pod is ready on this very machine; its addresses."""

    def found() -> Any:
        return json.loads(plane.kubectl("get", "pod", name, "-o", "json"))

    def is_there() -> object:
        status = found()["status"]
        return (status.get("hostIP") == on.node.address(4) and is_ready(found())) or status

    eventually(is_there, 300)
    return addresses_of(found())


def networks(plane: ControlPlane, name: str) -> set[str]:
    """The first addresses of a node's pod CIDRs."""
    spec: Any = plane.get("node", name)["spec"]
    return {prefix.partition("/")[0] for prefix in spec["podCIDRs"]}


def addresses(machine: Machine) -> tuple[str, str]:
    return machine.node.address(4), machine.node.address(6)


def assert_reached(cluster: KubeCluster, name: str, of: list[str]) -> None:
    """A pod is reached from all nodes, and reaches them."""
    plane = cluster.plane
    for machine in cluster.machines:
        for address in of:
            eventually(
                lambda m=machine.name, a=address: (  # type: ignore[misc]
                    plane.kubectl("exec", m, "--", "wget", "-qO-", url(a), check=False).strip()
                    == name
                )
            )


def test_a_fresh_machine_takes_the_name_of_a_dead_one(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    dead = cluster.machines[-1]
    assert len(traces(cluster.machines[0], *addresses(dead))) > 1
    cluster.lose(dead)
    fresh = cluster.join(dead.name)
    servers[fresh.name] = await_pod(cluster.plane, fresh.name, fresh)
    assert_reached(cluster, fresh.name, servers[fresh.name])
    for machine in cluster.machines:
        eventually(lambda m=machine: m.troubles() == [] or m.troubles())  # type: ignore[misc]
        await_forgotten(machine, *addresses(dead))
    network: Any = cluster.plane.get("nodenetwork", fresh.name, "-n", "podwire")
    assert tuple(network["spec"]["addresses"]) == addresses(fresh)


def test_a_machine_of_another_name_takes_the_place_of_a_dead_one(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    plane, dead = cluster.plane, cluster.machines[-1]
    had = networks(plane, dead.name)
    assert all(traces(cluster.machines[0], network) for network in had)
    cluster.lose(dead)
    plane.kubectl("delete", "node", dead.name)
    plane.kubectl("delete", "pod", dead.name, "--force", "--grace-period=0")
    del servers[dead.name]
    fresh = cluster.join("n4")
    plane.kubectl("apply", "-f", "-", stdin=server(fresh.name, fresh.name))
    servers[fresh.name] = await_pod(plane, fresh.name, fresh)
    assert_reached(cluster, fresh.name, servers[fresh.name])
    gone = had - networks(plane, fresh.name)  # the new machine may have got the same
    for machine in cluster.machines:
        eventually(lambda m=machine: m.troubles() == [] or m.troubles())  # type: ignore[misc]
        await_forgotten(machine, *addresses(dead), *gone)
        peers = json.loads(machine.in_daemon("podwirectl", "peers", "-o", "json"))
        assert dead.name not in {peer["name"] for peer in peers}
    listed = plane.kubectl("get", "nodenetworks", "-n", "podwire", "-o", "name").split()
    assert [n.rpartition("/")[2] for n in listed] == [m.name for m in cluster.machines]
