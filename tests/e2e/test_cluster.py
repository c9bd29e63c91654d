"""podwire as users get it: by its manifest, from its image, on three nodes."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import KubeCluster
from tests.e2e.images import BUSYBOX

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]


def pod(name: str, node: str, script: str) -> str:
    """The manifest of a pod that runs a shell script on a node."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "containers": [container],
                "terminationGracePeriodSeconds": 0,
            },
        }
    )


SERVER = "mkdir /www; echo {name} >/www/index.html; exec httpd -f -p 80 -h /www"


def test_nodes_get_ready_and_their_pods_reach_each_other(cluster: KubeCluster) -> None:
    plane = cluster.plane
    plane.await_ready("pod", "-n", "podwire", "-l", "app.kubernetes.io/name=podwired")
    names = [machine.name for machine in cluster.machines]
    for name in names:
        text = pod(f"pod-{name}", name, SERVER.format(name=name))
        plane.kubectl("apply", "-f", "-", stdin=text)
    plane.await_ready("pod", "--all")
    found = plane.get("pods")["items"]
    assert isinstance(found, list)
    addresses = {p["metadata"]["name"]: [a["ip"] for a in p["status"]["podIPs"]] for p in found}
    for one in names:
        for two in names:
            for address in addresses[f"pod-{two}"]:
                host = f"[{address}]" if ":" in address else address
                got = plane.kubectl("exec", f"pod-{one}", "--", "wget", "-qO-", f"http://{host}/")
                assert got.strip() == two


def test_the_list_of_nodes_reads_well(cluster: KubeCluster) -> None:
    lines = cluster.plane.kubectl("get", "nodenetworks", "-n", "podwire").splitlines()
    assert lines[0].split("  ")[0] == "NAME"
    for machine, line in zip(cluster.machines, lines[1:], strict=True):
        assert line.split()[:2] == [machine.name, machine.node.address(4)]
