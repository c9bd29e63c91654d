"""A cluster for tests: three nodes without a network plugin, and podwire's manifest.

The files run in the order of their names: the last ones take podwire off the nodes. All tests run
in a dual-stack cluster, then those of them that the mark `families` chooses in another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.apiserver import MANIFEST
from tests.cluster.container import ARCHIVE, build_image
from tests.e2e.cluster import KubeCluster
from tests.e2e.figures import Figures
from tests.e2e.images import make_images
from tests.e2e.pods import addresses_of, server
from tests.e2e.programs import fetch
from tests.pytest_netns.plugin import Registry
from tests.pytest_netns.underlay import Family

FOREIGN = "/etc/cni/net.d/10-other.conflist"
"""A configuration of another plugin, on the first node, before podwire comes."""
CONFLIST = "/etc/cni/net.d/05-podwire.conflist"
PROXIES = {"n1": "nftables", "n2": "nftables", "n3": "iptables"}
"""The first machines, and the modes of their kube-proxies."""
LATER = ("n4",)
"""Those that join later."""
DUAL_STACK: tuple[Family, ...] = (4, 6)
IPV6_ONLY: tuple[Family, ...] = (6,)
NAMES = {DUAL_STACK: "dual-stack", IPV6_ONLY: "IPv6-only"}
_FIGURES = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bare" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("families")
        chosen = mark.args if mark else (DUAL_STACK,)
        metafunc.parametrize("bare", chosen, indirect=True, ids=NAMES.get, scope="session")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[_FIGURES].lines
    if lines:
        terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """What the tests measure; printed at the end."""
    return request.config.stash[_FIGURES]


@pytest.fixture(scope="session")
def bare(
    request: pytest.FixtureRequest,
    netns_registry: Registry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[KubeCluster]:
    """A cluster whose nodes wait for their network."""
    fetch()
    build_image()
    folder = tmp_path_factory.mktemp("cluster")
    images = [*make_images(folder), ARCHIVE]
    made = KubeCluster(netns_registry, folder, request.param, (*PROXIES, *LATER), images)
    try:
        made.plane.start()
        made.join_all(PROXIES)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def cluster(bare: KubeCluster, figures: Figures) -> KubeCluster:
    """The same with podwire."""
    bare.machines[0].run("sh", "-c", f"echo '{{}}' >{FOREIGN}")
    began = time.time()
    bare.plane.kubectl("apply", "-f", MANIFEST)
    bare.plane.await_ready("node", "--all")
    name = NAMES[tuple(bare.families)]
    figures.add(f"{name}: kubectl apply to all nodes Ready", time.time() - began, "s")
    if bare.families == DUAL_STACK:
        add_installed(figures, bare)
    return bare


def add_installed(figures: Figures, bare: KubeCluster) -> None:
    """Figures of what nodes get, and of the time until they have it."""
    for machine in bare.machines:
        written = float(machine.run("stat", "--format", "%.9Y", CONFLIST))
        for name in ("install", "podwired"):
            seconds = written - machine.created(name)
            figures.add(f"{machine.name}: container {name} made to conflist written", seconds, "s")
    figures.add("the image, compressed", ARCHIVE.stat().st_size / 1e6, "MB")
    shim = bare.machines[0].run("stat", "--format", "%s", "/opt/cni/bin/podwire")
    figures.add("the shim", int(shim) / 1e3, "kB")


@pytest.fixture(scope="session")
def servers(cluster: KubeCluster) -> dict[str, list[str]]:
    """A server on each node, by the node's name: its addresses."""
    plane = cluster.plane
    for machine in cluster.machines:
        port = {"hostPort": 8080} if machine is cluster.machines[-1] else {}
        plane.kubectl("apply", "-f", "-", stdin=server(machine.name, machine.name, **port))
    plane.await_ready("pod", "--all")
    found: Any = plane.get("pods")["items"]
    return {pod["metadata"]["name"]: addresses_of(pod) for pod in found}
