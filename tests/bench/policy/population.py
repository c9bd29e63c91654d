"""Namespaces, pods and policies of a large cluster, as the API has them, and what happens to pods.

5,000 nodes with 50 pods each are 500 namespaces of 500 pods: ten applications of 50 pods. Two
policies are in each namespace: an application takes connections of a second one alone, and a third
one of the first; that one sends to the cluster's DNS alone. They select a fifth of all pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

from tests.cluster.apiserver import ApiServer
from tests.cluster.rest import MERGE, Object, Rest, place_of

T = TypeVar("T")

SPACES, PODS_OF_SPACE, APPS = 500, 500, 10
PODS = SPACES * PODS_OF_SPACE
PODS_OF_NODE = 50
DNS_SPACE = "kube-system"
_FIRST = int(ip_address("10.128.0.1"))
_WRITERS = 4
_GRACE = 30


@dataclass(frozen=True, slots=True)
class Placed:
    """A pod. number: of all pods; node: the name of its node."""

    number: int
    space: str
    node: str
    labels: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """As a Deployment calls it."""
        return f"{dict(self.labels).get('app', 'dns')}-7d9c5b8f6d-{self.number:05x}"

    @property
    def path(self) -> str:
        """Where the API has it."""
        return place_of("Pod", self.space, self.name)

    @property
    def address(self) -> str:
        """Its one address."""
        return str(ip_address(_FIRST + self.number))

    @property
    def object(self) -> Object:
        """As its controller makes it, of the size that pods of a plain web service have."""
        return _make_pod(self)


def space_of(number: int) -> str:
    """A namespace's name."""
    return f"team-{number:03}"


def place_pods(spaces: int, node: str, own_spaces: int) -> list[Placed]:
    """All pods of some namespaces.

    50 are on this node: as many of each application, as many of each of the first own_spaces.
    """
    own = PODS_OF_NODE // own_spaces
    found: list[Placed] = []
    for space in range(spaces):
        for number in range(PODS_OF_SPACE):
            app = f"app-{(number + space * own) % APPS}"
            labels = ("app", app), ("pod-template-hash", "7d9c5b8f6d"), ("team", f"team-{space}")
            is_here = space < own_spaces and number < own
            where = node if is_here else f"far-{space * 50 + number // 10}"
            found.append(Placed(len(found), space_of(space), where, labels))
    dns = (("k8s-app", "kube-dns"),)
    found += (Placed(PODS + n, DNS_SPACE, f"far-{n}", dns) for n in range(2))
    return found


def _make_pod(pod: Placed) -> Object:
    variables = [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(8)]
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    mounts = [
        {"name": "config", "mountPath": "/etc/app", "readOnly": True},
        {"name": "kube-api-access", "mountPath": account, "readOnly": True},
    ]
    probe = {"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 10}
    owner = {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-7d9c5b8f6d",
        "uid": "6f2c1a52-7a7e-4a3c-9a51-9d0a6f0b0001", "controller": True,
        "blockOwnerDeletion": True,
    }  # fmt: skip
    projected = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": pod.space, "name": pod.name, "labels": dict(pod.labels),
            "ownerReferences": [owner],
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        },
        "spec": {
            "nodeName": pod.node,
            "serviceAccountName": "default",
            "containers": [
                {
                    "name": "app", "image": "registry.example.org/team/service:v1.2.3",
                    "env": variables, "volumeMounts": mounts,
                    "ports": [{"name": "web", "containerPort": 8080}],
                    "readinessProbe": probe, "livenessProbe": probe,
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "128Mi"},
                        "limits": {"memory": "256Mi"},
                    },
                }
            ],
            "tolerations": [
                {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute",
                 "tolerationSeconds": 300}
                for why in ("not-ready", "unreachable")
            ],
            "volumes": [
                {"name": "config", "configMap": {"name": "app"}},
                {"name": "kube-api-access", "projected": {"sources": projected}},
            ],
        },
    }  # fmt: skip


def _conditions(*true: str) -> list[Object]:
    return [
        {"type": kind, "status": str(kind in true), "lastTransitionTime": "2026-11-01T08:00:00Z"}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]


def status_of(pod: Placed, *, ready: bool) -> Object:
    """The status of a pod that runs."""
    image = "registry.example.org/team/service"
    state = {"running": {"startedAt": "2026-11-01T08:00:00Z"}}
    container = {
        "name": "app", "image": f"{image}:v1.2.3", "imageID": f"{image}@sha256:{7:064x}",
        "containerID": f"containerd://{pod.number:064x}", "ready": ready, "started": True,
        "restartCount": 0, "state": state,
    }  # fmt: skip
    true = ("PodScheduled", "Initialized", *(("ContainersReady", "Ready") if ready else ()))
    return {
        "phase": "Running",
        "conditions": _conditions(*true),
        "hostIP": "192.0.2.10",
        "podIP": pod.address,
        "podIPs": [{"ip": pod.address}],
        "qosClass": "Burstable",
        "startTime": "2026-11-01T08:00:00Z",
        "containerStatuses": [container],
    }


def write_status(client: Rest, pod: Placed, status: Object) -> None:
    """What a kubelet reports."""
    client.ask(
        "PATCH", f"{pod.path}/status", {"status": status}, kind=MERGE, fieldManager="kubelet"
    ).expect(200, 404)


def create(client: Rest, pod: Placed) -> None:
    """A pod is made, and runs."""
    client.ask(
        "POST", place_of("Pod", pod.space), pod.object, fieldManager="kube-controller-manager"
    ).expect(201)
    write_status(client, pod, status_of(pod, ready=True))


def remove(client: Rest, pod: Placed) -> None:
    """A pod is gone at once."""
    client.ask("DELETE", pod.path, {"gracePeriodSeconds": 0}).expect(200, 404)


def replace(client: Rest, pod: Placed) -> None:
    """A pod ends, and another one takes its place, by all steps of a rollout: 7 events."""
    client.ask("DELETE", pod.path, {"gracePeriodSeconds": _GRACE}).expect(200, 404)
    write_status(client, pod, status_of(pod, ready=False))
    remove(client, pod)
    client.ask(
        "POST", place_of("Pod", pod.space), pod.object, fieldManager="kube-controller-manager"
    ).expect(201)
    write_status(client, pod, {"conditions": _conditions("PodScheduled")})
    write_status(client, pod, {"conditions": _conditions("PodScheduled", "Initialized")})
    write_status(client, pod, status_of(pod, ready=True))


def label(client: Rest, pod: Placed, **labels: str | None) -> None:
    """A pod's labels are others."""
    client.ask("PATCH", pod.path, {"metadata": {"labels": labels}}, kind=MERGE).expect(200)


def make_space(name: str) -> Object:
    """A namespace."""
    labels = {"team": name, "pod-security.kubernetes.io/enforce": "baseline"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def make_policy(space: str, name: str, **spec: Any) -> Object:
    """A policy."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": space, "name": name},
        "spec": spec,
    }


def _app(number: int) -> Object:
    return {"podSelector": {"matchLabels": {"app": f"app-{number}"}}}


def policies_of(space: str, change: int = 0) -> list[Object]:
    """The two of a namespace. change: another number makes others of them."""
    ports = [{"port": "web"}, {"port": 9000 + change}]
    dns = {
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    first = make_policy(space, "web", **_app(1), ingress=[{"from": [_app(0)], "ports": ports}])
    second = make_policy(
        space, "db", **_app(2), policyTypes=["Ingress", "Egress"],
        ingress=[{"from": [_app(1)], "ports": ports}], egress=[dns],
    )  # fmt: skip
    return [first, second]


def spread(api: ApiServer, work: Callable[[Rest, T], object], things: Iterable[T]) -> None:
    """Do it with all, some at once."""
    every = [*things]

    def run(first: int) -> None:
        client = api.direct()
        for each in every[first::_WRITERS]:
            work(client, each)
        client.close()

    with ThreadPoolExecutor(_WRITERS) as threads:
        list(threads.map(run, range(_WRITERS)))


def apply(client: Rest, made: Object) -> None:
    """Write an object."""
    client.apply(made).expect(200, 201)
