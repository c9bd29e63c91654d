"""One cluster for all tests: three nodes without a network plugin, and podwire's manifest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.apiserver import MANIFEST
from tests.cluster.container import ARCHIVE, build_image
from tests.e2e.control_plane import ControlPlane
from tests.e2e.images import make_images
from tests.e2e.machine import Machine
from tests.e2e.programs import fetch
from tests.pytest_netns import Node, Underlay
from tests.pytest_netns.plugin import Registry

FOREIGN = "/etc/cni/net.d/10-other.conflist"
"""A configuration of another plugin, on the first node, before podwire comes."""
NAMES = ("n1", "n2", "n3")


@dataclass(frozen=True)
class KubeCluster:
    """The control plane, and machines that run."""

    plane: ControlPlane
    machines: list[Machine]


@pytest.fixture(scope="session")
def bare(
    netns_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubeCluster]:
    """A cluster whose nodes wait for their network."""
    fetch()
    build_image()
    folder = tmp_path_factory.mktemp("cluster")
    images = [*make_images(folder), ARCHIVE]
    underlay = Underlay(netns_registry.make("underlay"))
    plane_folder = folder / "plane"
    plane_folder.mkdir()
    plane = ControlPlane(underlay.ns, plane_folder, underlay.gateway(4), NAMES)
    machines: list[Machine] = []
    nodes: list[Node] = []
    try:
        plane.start()
        for name in NAMES:
            nodes.append(Node(netns_registry.make(name), underlay, 1500))
            machines.append(Machine(nodes[-1], name, folder / name, plane))
            machines[-1].boot(images)
        yield KubeCluster(plane, machines)
    finally:
        for machine in machines:
            machine.stop()
        plane.close()
        for node in nodes:
            node.remove()
        underlay.ns.remove()
        for name in NAMES:
            shutil.rmtree(folder / name, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(bare: KubeCluster) -> KubeCluster:
    """The same with podwire."""
    bare.machines[0].run("sh", "-c", f"echo '{{}}' >{FOREIGN}")
    bare.plane.kubectl("apply", "-f", MANIFEST)
    bare.plane.await_ready("node", "--all")
    return bare
