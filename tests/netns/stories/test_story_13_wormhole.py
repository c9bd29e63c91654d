"""A pod has a port of its node, and other traffic to that port passes through the node.

A rule that matches the port alone captures it: packets for a load balancer's address, or for a
server outside, end in the pod. Rules match the node's own addresses, and the operator names those
that are the node's only in appearance.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.daemon.conftest import StartDaemon, podwired, start_daemon
from tests.netns.host_ports.test_host_ports import conf, mapping, outside
from tests.netns.robustness.scene import Scene
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import Namespace

__all__ = ["podwired", "start_daemon"]

BALANCER = "203.0.113.80"


@pytest.fixture
def balanced(scene: Scene, make_pod: Callable[[], Namespace]) -> Namespace:
    """A node whose pod has port 80, a pod beside it that asks, and a balancer far away."""
    attached = scene.add(conf("ptp", mapping(80, 80), ipMasq=True), make_pod(), "ingress")
    attached.pod.echo("tcp", attached.address(4), 80)
    asking = scene.add(conf("ptp", ipMasq=True), make_pod(), "asking").pod
    outside(scene).ip_batch(f"address add {BALANCER}/32 dev lo")
    return asking


def test_what_passes_through_goes_on(scene: Scene, balanced: Namespace) -> None:
    server = outside(scene).echo("tcp", BALANCER, 80)
    assert balanced.exchange(server) == scene.node.address(4)


def test_an_address_that_an_agent_bound_to_the_node(
    scene: Scene, balanced: Namespace, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """The balancer's agent answers on the node itself; `hostPorts.exclude` names its address."""
    scene.node.ns.ip_batch(f"address add {BALANCER}/32 dev lo")
    agent = scene.node.ns.echo("tcp", BALANCER, 80)
    source = balanced.exchange(agent)
    agent.close()
    assert balanced.exchange(agent), "captured: the pod answers where the agent does not"
    nodes, config = tmp_path / "nodes.yaml", tmp_path / "podwired.yaml"
    node = {"name": "a", "addresses": [scene.node.address(4)], "podCIDRs": ["10.77.0.0/24"]}
    nodes.write_text(json.dumps({"clusterCIDRs": ["10.77.0.0/16"], "nodes": [node]}))
    settings = {
        "node": "a",
        "source": {"static": str(nodes)},
        "conflist": False,
        "metrics": False,
        "hostPorts": {"exclude": [f"{BALANCER}/32"]},
    }
    config.write_text(json.dumps(settings))
    start_daemon(scene.node, words=["run", "--config", str(config)])
    eventually(lambda: not balanced.reaches(agent))
    agent = scene.node.ns.echo("tcp", BALANCER, 80)
    assert balanced.exchange(agent) == source
