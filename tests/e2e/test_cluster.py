"""podwire as users get it: by its manifest, from its image, on three nodes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.e2e.cluster import KubeCluster
from tests.e2e.conftest import DUAL_STACK, IPV6_ONLY
from tests.e2e.figures import METRICS
from tests.e2e.machine import Machine
from tests.e2e.pods import read, url
from tests.netns.routing.conftest import eventually

pytestmark = [
    pytest.mark.needs("kubernetes"),
    pytest.mark.timeout(900),
    pytest.mark.families(DUAL_STACK, IPV6_ONLY),
]


def test_pods_reach_each_other_across_nodes(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    for one in servers:
        for two, addresses in servers.items():
            assert len(addresses) == len(cluster.families)
            for address in addresses:
                got = cluster.plane.kubectl("exec", one, "--", "wget", "-qO-", url(address))
                assert got.strip() == two


def test_the_list_of_nodes_reads_well(cluster: KubeCluster) -> None:
    lines = cluster.plane.kubectl("get", "nodenetworks", "-n", "podwire").splitlines()
    for machine, line in zip(cluster.machines, lines[1:], strict=True):
        assert line.split()[:2] == [machine.name, machine.node.address(cluster.families[0])]


def test_a_port_of_the_node_leads_to_its_pod(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    last = cluster.machines[-1]
    for address in last.node.addresses.values():
        assert fetch(cluster, url(address, 8080)) == last.name


def test_metrics_are_read_from_another_machine(cluster: KubeCluster) -> None:
    for machine in cluster.machines:
        for address in machine.node.addresses.values():
            assert "podwire_info{" in fetch(cluster, f"{url(address, METRICS)}metrics")


def fetch(cluster: KubeCluster, target: str) -> str:
    """What somebody outside of the cluster gets."""
    try:
        return cluster.plane.ns.call(lambda: read(target))
    except OSError as error:
        return repr(error)


def test_services_lead_to_pods(cluster: KubeCluster, servers: dict[str, list[str]]) -> None:
    plane, (one, two, three) = cluster.plane, cluster.machines
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "type": "NodePort",
            "selector": {"app": two.name},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"port": 81, "targetPort": 80}],
        },
    }
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    spec: Any = plane.get("service", "web")["spec"]
    assert len(spec["clusterIPs"]) == len(cluster.families)

    def answers(pod: str, address: str) -> Callable[[], object]:
        words = ("exec", pod, "--", "wget", "-qO-", url(address, 81))
        return lambda: plane.kubectl(*words, check=False).strip() == two.name or address

    for address in spec["clusterIPs"]:
        # From another node, and from the very pod that it leads to.
        for pod in (one.name, two.name, three.name):
            eventually(answers(pod, address))
    [port] = spec["ports"]
    for machine, family in itertools.product((one, three), cluster.families):
        target = url(machine.node.address(family), port["nodePort"])
        eventually(partial(_is_answered, cluster, target, two.name))


def _is_answered(cluster: KubeCluster, target: str, name: str) -> object:
    got = fetch(cluster, target)
    return got == name or (target, got)


def test_a_policy_limits_who_reaches_a_pod(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    plane, (one, two, three) = cluster.plane, cluster.machines
    peers = [{"podSelector": {"matchLabels": {"app": one.name}}}]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "limit"},
        "spec": {
            "podSelector": {"matchLabels": {"app": two.name}},
            "ingress": [{"from": peers, "ports": [{"port": 80}]}],
        },
    }

    def gets(pod: str, address: str) -> bool:
        words = ("exec", pod, "--", "busybox", "timeout", "2", "wget", "-qO-", url(address))
        return plane.kubectl(*words, check=False).strip() == two.name

    plane.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    for address in servers[two.name]:
        eventually(lambda at=address: not gets(three.name, at))  # type: ignore[misc]
        assert gets(one.name, address)
    plane.kubectl("delete", "networkpolicy", "limit")
    for address in servers[two.name]:
        eventually(lambda at=address: gets(three.name, at))  # type: ignore[misc]


def test_nothing_is_wrong_with_a_node(cluster: KubeCluster, servers: dict[str, list[str]]) -> None:
    for machine in cluster.machines:
        eventually(lambda m=machine: m.troubles() == [] or m.troubles())  # type: ignore[misc]
        eventually(partial(doctor_finds_nothing, machine))


def doctor_finds_nothing(machine: Machine) -> object:
    examined = json.loads(machine.in_daemon("podwirectl", "doctor", "-o", "json", check=False))
    return examined["ok"] or examined["findings"]


def test_other_configurations_are_set_aside(cluster: KubeCluster) -> None:
    listed = cluster.machines[0].run("ls", "/etc/cni/net.d").split()
    assert [name for name in listed if name.endswith(".conflist")] == ["05-podwire.conflist"]
