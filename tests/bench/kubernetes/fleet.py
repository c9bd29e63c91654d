"""Nodes of a large cluster, as the API has them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.bench.routing.fleet import Listed
from tests.bench.world import World
from tests.cluster.apiserver import ASSETS, SPACE, ApiServer, KubeApiServer, StandIn
from tests.cluster.rest import Object

CLUSTER_CIDRS = ("10.0.0.0/8",)
_WRITERS = 4
_UID = "6f2c1a52-7a7e-4a3c-9a51-9d0a6f0b{:04x}"
_IMAGES = 20
_MERGE = "application/strategic-merge-patch+json"


@contextmanager
def open_api(world: World, kind: type[ApiServer] | None = None) -> Iterator[ApiServer]:
    """An API server on the underlay, with podwire's definition and rights.

    kind: None for the real one, where it is there.
    """
    kind = kind or (KubeApiServer if os.environ.get(ASSETS) else StandIn)
    folder = world.work_dir / f"api-{time.monotonic_ns()}"
    folder.mkdir()
    underlay = world.underlay
    server = kind(underlay.ns, folder, underlay.gateway(4))
    try:
        server.bookmark_seconds = 60.0  # as the real one
        server.start()
        server.install()
        yield server
    finally:
        server.close()


def network_of(node: Listed, uid: str = "") -> Object:
    """The object that the node's daemon writes. uid: of the Node, if there is one."""
    number = int(node.name.rpartition("-")[2])
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name}
    owner["uid"] = uid or _UID.format(number)
    return {
        "apiVersion": "podwire.dev/v1",
        "kind": "NodeNetwork",
        "metadata": {"name": node.name, "namespace": SPACE, "ownerReferences": [owner]},
        "spec": {"addresses": [node.address], "podCIDRs": [str(node.prefix)]},
    }


def publish(api: ApiServer, nodes: Iterable[Listed], uids: Mapping[str, str] | None = None) -> None:
    """Objects of many nodes; uids of their Nodes, by name."""
    known = uids or {}
    _spread(api, [network_of(node, known.get(node.name, "")) for node in nodes])


def _spread(api: ApiServer, objects: list[Object]) -> None:
    def write(first: int) -> None:
        client = api.direct()
        for made in objects[first::_WRITERS]:
            client.apply(made, "podwired").expect(200, 201)

    with ThreadPoolExecutor(_WRITERS) as threads:
        list(threads.map(write, range(_WRITERS)))


def make_node(node: Listed) -> Object:
    """A Node as a kubelet of a small cloud machine reports it; images are its largest part."""
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "m.large",
        "beta.kubernetes.io/os": "linux",
        "failure-domain.beta.kubernetes.io/region": "region-1",
        "failure-domain.beta.kubernetes.io/zone": "region-1-b",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "m.large",
        "topology.kubernetes.io/region": "region-1",
        "topology.kubernetes.io/zone": "region-1-b",
    }
    annotations = {
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    capacity = {
        "cpu": "4", "ephemeral-storage": "101430960Ki", "hugepages-1Gi": "0",
        "hugepages-2Mi": "0", "memory": "16374580Ki", "pods": "110",
    }  # fmt: skip
    info = {
        "architecture": "amd64",
        "bootID": "f5a4b3c8-7a5e-4a38-8f22-0c7a8d1f9b11",
        "containerRuntimeVersion": "containerd://1.7.22",
        "kernelVersion": "6.1.0-25-amd64",
        "kubeProxyVersion": "v1.36.2",
        "kubeletVersion": "v1.36.2",
        "machineID": "b0a6f0d2a1c24f3e8d7c6b5a49382716",
        "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 12 (bookworm)",
        "systemUUID": "b0a6f0d2-a1c2-4f3e-8d7c-6b5a49382716",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": annotations},
        "spec": {"podCIDR": str(node.prefix), "podCIDRs": [str(node.prefix)]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": node.address},
                {"type": "Hostname", "address": node.name},
            ],
            "allocatable": capacity,
            "capacity": capacity,
            "conditions": _conditions(),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": [_image(n) for n in range(_IMAGES)],
            "nodeInfo": info,
        },
    }


def _conditions() -> list[Object]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said = {
        "MemoryPressure": (
            "False",
            "KubeletHasSufficientMemory",
            "has sufficient memory available",
        ),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "is posting ready status"),
    }
    return [
        {
            "type": kind, "status": status, "reason": reason, "message": f"kubelet {message}",
            "lastHeartbeatTime": now, "lastTransitionTime": "2026-11-01T08:00:00Z",
        }
        for kind, (status, reason, message) in said.items()
    ]  # fmt: skip


def _image(number: int) -> Object:
    name = f"registry.example.org/team/service-{number}"
    return {
        "names": [f"{name}@sha256:{number:064x}", f"{name}:v1.{number}.0"],
        "sizeBytes": 1 << 26,
    }


def beat(api: ApiServer, client_path: str, number: int) -> None:
    """What a kubelet reports every five minutes though nothing changed: other times alone."""
    conditions = _conditions()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + number))
    for condition in conditions:
        condition["lastHeartbeatTime"] = stamp
    patch = {"status": {"conditions": conditions}}
    answer = api.admin.ask(
        "PATCH", f"{client_path}/status", patch, kind=_MERGE, fieldManager="kubelet"
    )
    answer.expect(200)
