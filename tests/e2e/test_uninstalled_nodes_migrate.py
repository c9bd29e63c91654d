"""From another plugin to podwire while pods run, and back, by the commands of docs/migration.md.

The nodes have what the other plugin's daemon leaves on them, and pods by the reference plugins. It
runs where no podwire is: in a new cluster, or after the test of the removal.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.cluster.apiserver import MANIFEST
from tests.e2e.cluster import KubeCluster
from tests.e2e.machine import Machine
from tests.e2e.pods import addresses_of, read, server, url
from tests.netns.routing.conftest import eventually
from tests.netns.routing.predecessors import DEBIAN, FLANNEL, KINDNET, Place, Plugin
from tests.pytest_netns import EchoServer
from tests.pytest_netns.namespace import call_in
from tests.pytest_netns.tools import ROOT
from tests.pytest_netns.traffic import exchange

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]

PLUGINS = ("bridge", "ptp", "host-local", "loopback", "portmap")
CONFIGURATIONS = "/etc/cni/net.d"
PORT = 8080
"""Of a node, that leads to a pod from before."""

Addresses = dict[str, list[str]]
"""Of pods, by their names."""


@dataclass
class Before:
    """A cluster with pods of another plugin: two on the first node, one on the second."""

    cluster: KubeCluster
    plugin: Plugin
    places: dict[Machine, Place]
    outside: list[EchoServer]
    """Beyond the nodes, of each family."""

    def addresses(self) -> Addresses:
        """Of all pods; their statuses have them as long as the sandboxes are the same."""
        items: Any = self.cluster.plane.get("pods")["items"]
        return {pod["metadata"]["name"]: addresses_of(pod) for pod in items}

    def start(self, name: str, machine: Machine, **port: int) -> None:
        manifest = server(name, machine.name, **port)
        self.cluster.plane.kubectl("apply", "-f", "-", stdin=manifest)

    def await_reached(self, client: str, name: str, found: Addresses) -> None:
        """Wait until a pod reaches another one by all addresses of families that it has."""
        families = {":" in address for address in found[client]}
        for address in found[name]:
            if (":" in address) in families:
                eventually(partial(self._answers, client, address, name))

    def _answers(self, client: str, address: str, name: str) -> object:
        words = ("exec", client, "--", "busybox", "timeout", "3", "wget", "-qO-", url(address))
        found = self.cluster.plane.kubectl(*words, check=False).strip()
        return found == name or found

    def assert_masqueraded(self, machine: Machine, found: list[str]) -> None:
        """A pod on the node is seen outside with the node's addresses."""
        netns = machine.namespace_of(found[0])
        for family, there in zip(self.plugin.families, self.outside, strict=True):
            seen = call_in(netns, partial(exchange, socket.socket, "tcp", there.listens))
            assert seen == machine.node.address(family)

    def assert_port_leads_to(self, machine: Machine, name: str) -> None:
        """PORT of a node leads to a pod."""
        for family in self.plugin.families:
            target = url(machine.node.address(family), PORT)
            assert self.cluster.plane.ns.call(partial(read, target)) == name

    def is_taken_over(self, machine: Machine) -> object:
        """Whether the plugin's device, routes and configuration are gone, and podwire's there."""
        links = machine.run("ip", "link")
        routes = "".join(machine.run("ip", f, "route", "show", "proto", "boot") for f in IP)
        prefixes = {cidr for place in self.places.values() for cidr in place.cidrs.values()}
        left = [line for line in routes.splitlines() if line.split()[0] in prefixes]
        there = "podwire-vxlan" in links and "flannel.1" not in links
        names = configurations(machine)
        return (there and not left and names == ["05-podwire.conflist"]) or (links, left, names)

    def reservations(self, machine: Machine) -> list[str]:
        """The addresses that host-local has reserved."""
        return machine.run("ls", f"{self.plugin.state}/{self.plugin.network}").split()


IP = ("-4", "-6")


def configurations(machine: Machine) -> list[str]:
    """The names of those that the container runtime reads."""
    names = machine.run("ls", CONFIGURATIONS).split()
    return [name for name in names if name.endswith(".conflist")]


def places_in(cluster: KubeCluster) -> dict[Machine, Place]:
    """The machines that have pod CIDRs."""
    items: Any = cluster.plane.get("nodes")["items"]
    found = {n["metadata"]["name"]: n["spec"].get("podCIDRs") for n in items}
    return {
        machine: Place(
            number, machine.node.addresses, {6 if ":" in c else 4: c for c in found[machine.name]}
        )
        for number, machine in enumerate(cluster.machines)
        if found.get(machine.name)
    }


def lay(machine: Machine, plugin: Plugin, places: dict[Machine, Place]) -> None:
    """Make a machine a node of another plugin."""
    peers = [place for other, place in places.items() if other is not machine]
    for command in plugin.commands(places[machine], peers):
        machine.run(*command.split())
    machine.run("cp", *(DEBIAN / name for name in PLUGINS), "/opt/cni/bin")
    machine.run("find", CONFIGURATIONS, "-type", "f", "-delete")
    place = f"{CONFIGURATIONS}/{plugin.file}"
    machine.write(f"{place}.new", json.dumps(plugin.conflist(places[machine])))
    machine.run("mv", f"{place}.new", place)


@pytest.fixture(scope="module", params=[KINDNET, FLANNEL], ids=lambda plugin: plugin.name)
def before(request: pytest.FixtureRequest, bare: KubeCluster) -> Before:
    plugin: Plugin = request.param
    eventually(lambda: len(places_in(bare)) == len(bare.machines))
    places, underlay = places_in(bare), bare.underlay
    outside = [underlay.ns.echo("tcp", underlay.gateway(family)) for family in plugin.families]
    for machine in places:
        lay(machine, plugin, places)
    bare.plane.await_ready("node", "--all")
    made = Before(bare, plugin, places, outside)
    one, two, _three = bare.machines
    made.start("old1", one)
    made.start("old2", two, hostPort=PORT)
    made.start("old3", one)
    bare.plane.await_ready("pod", "--all")
    return made


def test_pods_run_on_under_podwire(before: Before) -> None:
    plane, (one, two, _three) = before.cluster.plane, before.cluster.machines
    old, plugin = before.addresses(), before.plugin
    assert {len(found) for found in old.values()} == {len(plugin.families)}
    before.await_reached("old1", "old2", old)
    before.assert_masqueraded(one, old["old1"])
    before.assert_port_leads_to(two, "old2")
    containers = one.running("pod.name", "old1")

    page = (ROOT / "docs/migration.md").read_text()
    [script] = re.findall(rf"^    sed '(s/.*migrateFrom: {plugin.name}.*)' \\$", page, re.MULTILINE)
    done = subprocess.run(["sed", script, MANIFEST], capture_output=True, text=True, check=True)
    plane.kubectl("apply", "-f", "-", stdin=done.stdout)
    words = ("rollout", "status", "daemonset", "podwired", "--timeout=170s")
    plane.kubectl("-n", "podwire", *words)
    for machine in before.cluster.machines:
        eventually(partial(before.is_taken_over, machine))
    for client, name in (("old1", "old2"), ("old2", "old1"), ("old1", "old3")):
        before.await_reached(client, name, old)
    before.assert_masqueraded(one, old["old1"])
    before.assert_port_leads_to(two, "old2")
    assert before.addresses() == old
    assert len(containers) == 2
    assert one.running("pod.name", "old1") == containers

    for name, machine in (("new1", one), ("new2", two)):
        before.start(name, machine)
    plane.await_ready("pod", "--all")
    found = before.addresses()
    every = [address for addresses in found.values() for address in addresses]
    assert len(set(every)) == len(every)
    for client, name in (
        ("new1", "old1"),
        ("old3", "new1"),
        ("new1", "old2"),
        ("old2", "new1"),
        ("new1", "new2"),
    ):
        before.await_reached(client, name, found)
    before.assert_masqueraded(one, found["new1"])

    # An old one is recreated, and leaves nothing.
    assert set(old["old3"]) <= set(before.reservations(one))
    plane.kubectl("delete", "pod", "old3", "--wait")
    eventually(lambda: set(old["old3"]).isdisjoint(before.reservations(one)))
    assert set(old["old1"]) <= set(before.reservations(one))
    cached = one.run("ls", "/var/lib/cni/results").split()
    assert len([name for name in cached if name.startswith(f"{plugin.network}-")]) == 1
    before.await_reached("old1", "old2", old)


def test_the_other_plugin_is_back_after_the_removal(before: Before) -> None:
    before.cluster.plane.kubectl("delete", "pods", "--all", "--wait")
    before.cluster.uninstall()
    for machine in before.cluster.machines:
        assert configurations(machine) == [before.plugin.file]
        place = f"{CONFIGURATIONS}/{before.plugin.file}"
        conflist = before.plugin.conflist(before.places[machine])
        assert json.loads(machine.run("cat", place)) == conflist
    before.start("back", before.cluster.machines[0])
    before.cluster.plane.await_ready("pod", "back")
    before.cluster.plane.kubectl("delete", "pod", "back", "--wait")
