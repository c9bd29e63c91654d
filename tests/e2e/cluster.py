"""A cluster: a control plane, and machines that come and go."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.apiserver import MANIFEST
from tests.e2e.control_plane import ControlPlane
from tests.e2e.machine import Machine
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import Node, Snapshot, Underlay, snapshot
from tests.pytest_netns.plugin import Registry
from tests.pytest_netns.underlay import Family


class KubeCluster:
    """`close` after use.

    families: of all its addresses, the first one first. names: of the machines that may join.
    images: what each has at hand.
    """

    def __init__(
        self,
        registry: Registry,
        folder: Path,
        families: Sequence[Family],
        names: Sequence[str],
        images: Sequence[Path],
    ) -> None:
        self.families = families
        self._registry, self._folder, self._images = registry, folder, images
        self._numbers = itertools.count(1)
        self.underlay = Underlay(registry.make("underlay"), families)
        plane = folder / "plane"
        plane.mkdir()
        self.plane = ControlPlane(self.underlay, plane, families, names)
        self.machines: list[Machine] = []
        self.before: dict[Machine, Snapshot] = {}
        """What the machines' namespaces had before they joined."""

    def join(self, name: str, proxy: str = "nftables") -> Machine:
        """A fresh machine. proxy: the mode of its kube-proxy."""
        self.join_all({name: proxy})
        return self.machines[-1]

    def join_all(self, proxies: Mapping[str, str]) -> None:
        """Fresh machines. proxies: the modes of their kube-proxies, by their names."""
        made = [self._make(name, proxy) for name, proxy in proxies.items()]
        self.machines += made
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.boot(self._images), made))
        for machine in made:
            self.before[machine] = snapshot(machine.node.ns)
            machine.join()
        # Who waits for `node --all` waits for those alone that the API has by then.
        eventually(self._are_registered)

    def _are_registered(self) -> object:
        listed = self.plane.kubectl("get", "nodes", "-o", "name").split()
        return {f"node/{machine.name}" for machine in self.machines} <= {*listed} or listed

    def _make(self, name: str, proxy: str) -> Machine:
        node = Node(self._registry.make(name), self.underlay, 1500)
        folder = self._folder / f"{name}-{next(self._numbers)}"
        return Machine(node, name, folder, self.plane, proxy)

    def lose(self, machine: Machine) -> None:
        """End a machine and everything on it at once, with its disk and its network."""
        self.machines.remove(machine)
        machine.stop()
        machine.node.remove()
        shutil.rmtree(machine.folder, ignore_errors=True)

    def uninstall(self) -> None:
        """Take podwire off, by the commands of docs/kubernetes.md; no pod may need it any more."""
        plane = self.plane
        plane.kubectl("-n", "podwire", "delete", "daemonset", "podwired", "--cascade=foreground")
        plane.kubectl("apply", "-f", MANIFEST.with_name("uninstall.yaml"))
        words = ("rollout", "status", "daemonset", "podwire-uninstall", "--timeout=170s")
        plane.kubectl("-n", "podwire", *words)
        assert plane.kubectl("get", "nodenetworks", "-n", "podwire").strip() == ""
        plane.kubectl("delete", "--ignore-not-found", "-f", MANIFEST, "--timeout=170s")

    def close(self) -> None:
        """End everything."""
        while self.machines:
            self.lose(self.machines[-1])
        self.plane.close()
        self.underlay.ns.remove()
