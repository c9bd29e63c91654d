"""podwire as users get it: by its manifest, from its image, on three nodes.

The tests share a cluster, and go from its first minute to its last one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.cluster.apiserver import MANIFEST
from tests.e2e.conftest import FOREIGN, KubeCluster
from tests.e2e.images import BUSYBOX
from tests.netns.routing.conftest import eventually

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]


SCRIPT = "mkdir /www; echo {name} >/www/index.html; exec httpd -f -p 80 -h /www"


def server(name: str, node: str, **port: object) -> str:
    """The manifest of a pod on a node that answers with its name."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SCRIPT.format(name=name)],
        "ports": [{"containerPort": 80, **port}],
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "containers": [container],
                "terminationGracePeriodSeconds": 1,
            },
        }
    )


@pytest.fixture(scope="module")
def servers(cluster: KubeCluster) -> dict[str, list[str]]:
    """A server on each node, by the node's name: its addresses."""
    plane = cluster.plane
    for machine in cluster.machines:
        port = {"hostPort": 8080} if machine is cluster.machines[-1] else {}
        plane.kubectl("apply", "-f", "-", stdin=server(machine.name, machine.name, **port))
    plane.await_ready("pod", "--all")
    found: Any = plane.get("pods")["items"]
    return {p["metadata"]["name"]: [a["ip"] for a in p["status"]["podIPs"]] for p in found}


def url(address: str, port: int = 80) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/"


def test_pods_reach_each_other_across_nodes(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    for one in servers:
        for two, addresses in servers.items():
            assert len(addresses) == 2
            for address in addresses:
                got = cluster.plane.kubectl("exec", one, "--", "wget", "-qO-", url(address))
                assert got.strip() == two


def test_the_list_of_nodes_reads_well(cluster: KubeCluster) -> None:
    lines = cluster.plane.kubectl("get", "nodenetworks", "-n", "podwire").splitlines()
    for machine, line in zip(cluster.machines, lines[1:], strict=True):
        assert line.split()[:2] == [machine.name, machine.node.address(4)]


def test_a_port_of_the_node_leads_to_its_pod(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    last = cluster.machines[-1]
    for version in (4, 6):
        address = last.node.address(version)
        assert fetch(cluster, url(address, 8080)) == last.name


def fetch(cluster: KubeCluster, target: str) -> str:
    """What somebody outside of the cluster gets."""
    code = (
        "import sys, urllib.request as u\n"
        "print(u.build_opener(u.ProxyHandler({})).open(sys.argv[1], timeout=5).read().decode())"
    )
    done = cluster.plane.ns.run([sys.executable, "-Ic", code, target], check=False)
    return done.stdout.strip() or done.stderr


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
    assert len(spec["clusterIPs"]) == 2

    def answers(pod: str, address: str) -> Callable[[], object]:
        words = ("exec", pod, "--", "wget", "-qO-", url(address, 81))
        return lambda: plane.kubectl(*words, check=False).strip() == two.name or address

    for address in spec["clusterIPs"]:
        # From another node, and from the very pod that it leads to.
        for pod in (one.name, two.name):
            eventually(answers(pod, address))
    [port] = spec["ports"]
    for version in (4, 6):
        target = url(three.node.address(version), port["nodePort"])
        eventually(partial(_is_answered, cluster, target, two.name))


def _is_answered(cluster: KubeCluster, target: str, name: str) -> object:
    got = fetch(cluster, target)
    return got == name or (target, got)


def test_daemons_are_replaced_under_traffic(
    cluster: KubeCluster, servers: dict[str, list[str]]
) -> None:
    plane, (one, two, _) = cluster.plane, cluster.machines
    here = one.namespace_of(servers[one.name][0])
    ping = ["ping", "-n", "-q", "-i", "0.01", servers[two.name][0]]
    stream = subprocess.Popen(
        ["nsenter", f"--net={here}", "--", *ping], stdout=subprocess.PIPE, text=True
    )
    try:
        plane.kubectl("-n", "podwire", "rollout", "restart", "daemonset", "podwired")
        # What starts meanwhile may wait for its daemon, and starts.
        plane.kubectl("apply", "-f", "-", stdin=server("late", one.name))
        words = ("rollout", "status", "daemonset", "podwired", "--timeout=170s")
        plane.kubectl("-n", "podwire", *words)
        plane.await_ready("pod", "late")
    finally:
        stream.send_signal(signal.SIGINT)
        text, _ = stream.communicate(timeout=60)
    sent, received = (int(word.split()[0]) for word in text.split("\n")[3].split(",")[:2])
    assert sent > 100
    assert sent == received


def test_other_configurations_are_set_aside(cluster: KubeCluster) -> None:
    listed = cluster.machines[0].run("ls", "/etc/cni/net.d").split()
    assert [name for name in listed if name.endswith(".conflist")] == ["05-podwire.conflist"]


def test_uninstall_leaves_the_nodes_as_they_were(cluster: KubeCluster) -> None:
    plane = cluster.plane
    plane.kubectl("delete", "pods", "--all", "--wait")
    plane.kubectl("-n", "podwire", "delete", "daemonset", "podwired", "--cascade=foreground")
    plane.kubectl("apply", "-f", MANIFEST.with_name("uninstall.yaml"))
    words = ("rollout", "status", "daemonset", "podwire-uninstall", "--timeout=170s")
    plane.kubectl("-n", "podwire", *words)
    assert plane.kubectl("get", "nodenetworks", "-n", "podwire").strip() == ""
    plane.kubectl("delete", "--ignore-not-found", "-f", MANIFEST, "--timeout=170s")
    for machine in cluster.machines:
        folders = ("/etc/cni/net.d", "/opt/cni/bin", "/run/podwire", "/var/lib/podwire")
        left = machine.run("find", *folders, "!", "-type", "d").split()
        assert left == ([FOREIGN] if machine is cluster.machines[0] else [])
        assert "podwire" not in machine.run("nft", "list", "tables")
        assert "podwire" not in machine.run("ip", "link")
        for family in ("-4", "-6"):
            assert machine.run("ip", family, "route", "show", "proto", "113") == ""
