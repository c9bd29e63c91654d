"""An API server for tests, real or stood in for, driven in one way: over its own API."""

from __future__ import annotations

import base64
import calendar
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.authority import Authority, make_authority
from tests.cluster.rest import MERGE, Object, Refused, Rest, place_of
from tests.cluster.wire import Connect, Wire
from tests.pytest_netns import Namespace
from tests.pytest_netns.tools import ROOT

ASSETS = "KUBEBUILDER_ASSETS"
MANIFEST = ROOT / "packaging/kubernetes/podwire.yaml"
SPACE = "podwire"
"""The namespace of podwire's objects."""
SYSTEM, KUBEADM = "kube-system", "kubeadm-config"
"""Where kubeadm keeps the configuration of a cluster."""
POD_SUBNET = "10.244.0.0/16,fd00:10:244::/48"
PORT = 6443
START_SECONDS = 120.0
# As kubeadm runs etcd: else a bookmark tells nothing new for ten minutes. Names of 3.6 and 3.5.
_PROGRESS = {f"ETCD_{name}WATCH_PROGRESS_NOTIFY_INTERVAL": "5s" for name in ("", "EXPERIMENTAL_")}
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the server took. verb: as in RBAC. time: seconds since the epoch."""

    verb: str
    uri: str
    user: str
    code: int
    time: float


class ApiServer(ABC):
    """A server in a namespace of its own; `start` before use, `stop` after."""

    kind = ""

    def __init__(self, ns: Namespace, folder: Path, address: str = "127.0.0.1") -> None:
        self.ns, self.folder, self.address = ns, folder, address
        self.bookmark_seconds = 2.0
        self.authority: Authority = make_authority(folder)
        self.audit = folder / "audit.log"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """By their programs' names, in the order of their start."""
        self.admin_token = secrets.token_hex(16)
        self._account = ""
        self._read = 0
        ns.ip_batch("link set lo up\n")
        self._wire = self.wire()
        self.admin = self.client(self._wire, self.admin_token)

    @abstractmethod
    def programs(self) -> Iterable[tuple[str, Sequence[str | Path]]]:
        """What runs, in this order: a name and a command."""

    def start(self) -> None:
        """Start it; it serves when this returns."""
        for name, argv in self.programs():
            self.spawn(name, argv)
        self._await("the API server", self._is_ready)

    def spawn(self, name: str, argv: Sequence[str | Path]) -> None:
        """Start a program in its namespace."""
        with (self.folder / f"{name}.log").open("ab") as log:
            inside = ["nsenter", f"--net={self.ns.path}", "--", *argv]
            self.processes[name] = subprocess.Popen(
                inside,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **_PROGRESS},
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; what was written stays. Repeatable."""
        while self.processes:
            _, process = self.processes.popitem()
            process.send_signal(number)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def restart(self) -> None:
        """End it and start it: what it remembered of the past is gone."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End everything."""
        self.admin.close()
        self.stop(signal.SIGKILL)
        self._wire.close()

    def _is_ready(self) -> bool:
        dead = [name for name, p in self.processes.items() if p.poll() is not None]
        assert not dead, f"{dead} ended: {self._last_words()}"
        try:
            return self.admin.ask("GET", "/readyz").code == 200
        except Refused:
            return False

    def _await(self, what: str, check: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS
        while not check():
            assert time.monotonic() < until, f"{what} did not come: {self._last_words()}"
            time.sleep(0.1)

    def _last_words(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-2000:] for p in self.folder.glob("*.log"))

    def wire(self, host: str = "127.0.0.1", port: int = 0, make: Connect = socket.socket) -> Wire:
        """A way to it, from an address of the namespace that `make` makes sockets in."""
        listener = make()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        return Wire(listener, self.connect, make)

    def connect(self) -> socket.socket:
        """A connection from within its namespace."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        made = self.ns.socket(family, socket.SOCK_STREAM)
        try:
            made.connect((self.address, PORT))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            made.close()
            raise
        return made

    def client(self, wire: Wire, token: str) -> Rest:
        """A client with a token."""
        return Rest(wire.address, self.authority.ca, token)

    def direct(self) -> Rest:
        """One more client with all rights, for another thread."""
        return self.client(self._wire, self.admin_token)

    def install(self) -> None:
        """Bring in podwire as users do: its namespace, its definition, its rights, its daemons."""
        made: list[Object] = [kubeadm_config(), *yaml.safe_load_all(MANIFEST.read_text())]
        for manifest in made:
            self.admin.apply(manifest).expect(200, 201)
        [self._account] = {
            s["name"] for m in made if m["kind"] == "RoleBinding" for s in m["subjects"]
        }
        listed = place_of("NodeNetwork", SPACE)
        self._await("the definition", lambda: self.admin.ask("GET", listed).code == 200)
        with closing(self.client(self._wire, self.issue("probe"))) as daemon:
            # A policy takes effect some time after it was written.
            other = network("other", [], ["192.0.2.1"])
            self._await("the policy", lambda: daemon.apply(other).code in (403, 422))

    @contextmanager
    def without_schema(self) -> Iterator[None]:
        """Objects of any form are taken, as by a definition that somebody loosened."""
        path = place_of("CustomResourceDefinition", "", "nodenetworks.podwire.dev")
        found = self.admin.ask("GET", path).expect(200)
        [version] = found["spec"]["versions"]
        loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        patch = {"spec": {"versions": [{**version, "schema": {"openAPIV3Schema": loose}}]}}
        self.admin.ask("PATCH", path, patch, kind=MERGE).expect(200)
        odd = {**network("odd", [], []), "spec": {"addresses": 7}}
        self._await("the schema's end", lambda: self.admin.apply(odd).code in (200, 201))
        self.remove("NodeNetwork", "odd", SPACE)
        try:
            yield
        finally:
            self.admin.ask("DELETE", place_of("NodeNetwork", SPACE)).expect(200)
            patch = {"spec": {"versions": [version]}}
            self.admin.ask("PATCH", path, patch, kind=MERGE).expect(200)
            self._await("the schema", lambda: self.admin.apply(odd).code not in (200, 201))

    def add_node(self, name: str, cidrs: Sequence[str], addresses: Sequence[str]) -> Object:
        """A Node object, as the kubelet and the controller manager make it."""
        spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
        found = [{"type": "InternalIP", "address": a} for a in addresses]
        made = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": spec,
            "status": {"addresses": [*found, {"type": "Hostname", "address": name}]},
        }
        return self.admin.ask("POST", place_of("Node"), made).expect(201)

    def assign(self, name: str, cidrs: Sequence[str]) -> None:
        """Give a Node its pod CIDRs, as the controller manager does some time later."""
        patch = {"spec": {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)}}
        kind = "application/merge-patch+json"
        self.admin.ask("PATCH", place_of("Node", "", name), patch, kind=kind).expect(200)

    def remove(self, kind: str, name: str, space: str = "") -> None:
        """Remove an object at once, whether it is there or not."""
        body = {"gracePeriodSeconds": 0}
        self.admin.ask("DELETE", place_of(kind, space, name), body).expect(200, 404)

    def network(self, name: str) -> Object | None:
        """A node's object."""
        answer = self.admin.ask("GET", place_of("NodeNetwork", SPACE, name))
        return None if answer.code == 404 else answer.expect(200)

    def put_network(
        self, name: str, cidrs: Sequence[str], addresses: Sequence[str], manager: str = "tests"
    ) -> Object:
        """A node's object, written by somebody with all rights."""
        return self.admin.apply(network(name, cidrs, addresses), manager).expect(200, 201)

    def issue(self, node: str, account: str = "") -> str:
        """A token as a pod of the DaemonSet on that node has it; earlier ones of it are void."""
        pod = f"podwired-{node}"
        self.remove("Pod", pod, SPACE)
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": SPACE},
            "spec": {
                "nodeName": node,
                "serviceAccountName": account or self._account,
                "containers": [{"name": "podwired", "image": "podwire"}],
            },
        }
        found = self.admin.ask("POST", place_of("Pod", SPACE), made).expect(201)
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": found["metadata"]["uid"]}
        return self._token(account or self._account, {"boundObjectRef": bound})

    def issue_unbound(self, bound: Object | None = None) -> str:
        """A token of the daemons' account that no pod has; bound: what it is bound to instead."""
        return self._token(self._account, {"boundObjectRef": bound} if bound else {})

    def stranger(self) -> str:
        """A token of somebody without any rights."""
        made = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "stranger", "namespace": SPACE},
        }
        self.admin.apply(made).expect(200, 201)
        return self._token("stranger", {})

    def _token(self, account: str, spec: Object) -> str:
        path = place_of("ServiceAccount", SPACE, account) + "/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.admin.ask("POST", path, request).expect(201)["status"]["token"])

    def requests(self, user: str = "serviceaccount") -> list[Request]:
        """What was asked since the last `clear` by users with that word in their names."""
        with self.audit.open() as file:
            file.seek(self._read)
            text = file.read()
        lines = text[: text.rfind("\n") + 1].splitlines()
        found = [_read_request(json.loads(line)) for line in lines if user in line]
        return [r for r in found if r and user in r.user]

    def clear(self) -> None:
        """Remove what a test made, and forget its requests."""
        self._read = self.audit.stat().st_size
        body = {"gracePeriodSeconds": 0}
        for kind, space in (("NodeNetwork", SPACE), ("Pod", SPACE), ("Node", "")):
            self.admin.ask("DELETE", place_of(kind, space), body).expect(200)


def _read_request(entry: dict[str, Any]) -> Request | None:
    watching = entry["verb"] == "watch"
    # A watch that is refused never starts.
    starts = watching and entry["responseStatus"]["code"] < 400
    if entry["stage"] != ("ResponseStarted" if starts else "ResponseComplete"):
        return None
    stamp = entry["requestReceivedTimestamp"].rstrip("Z")
    whole, _, part = stamp.partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    user, code = entry["user"]["username"], entry["responseStatus"]["code"]
    return Request(entry["verb"], entry["requestURI"], user, code, seconds + float(f"0.{part}"))


def network(name: str, cidrs: Sequence[str], addresses: Sequence[str]) -> Object:
    """A node's object."""
    return {
        "apiVersion": "podwire.dev/v1",
        "kind": "NodeNetwork",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"addresses": list(addresses), "podCIDRs": list(cidrs)},
    }


def kubeadm_config(pod_subnet: str = POD_SUBNET) -> Object:
    """The ConfigMap that kubeadm writes, as far as it matters here."""
    networking = {"dnsDomain": "cluster.local", "podSubnet": pod_subnet}
    content = {
        "apiServer": {},
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "networking": {**networking, "serviceSubnet": "10.96.0.0/16"},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": KUBEADM, "namespace": SYSTEM},
        "data": {"ClusterConfiguration": yaml.safe_dump(content)},
    }


class StandIn(ApiServer):
    """The tests' own."""

    kind = "stand-in"

    def programs(self) -> Iterable[tuple[str, Sequence[str | Path]]]:
        """One process."""
        yield (
            "standin",
            [
                *(sys.executable, "-m", "tests.cluster.standin"),
                *("--certificate", self.authority.certificate, "--key", self.authority.key),
                *("--state", self.folder / "objects.json", "--audit", self.audit),
                *("--admin-token", self.admin_token),
                *("--bookmark-seconds", str(self.bookmark_seconds)),
                *("--address", self.address),
            ],
        )


class KubeApiServer(ApiServer):
    """kube-apiserver and etcd."""

    kind = "kube-apiserver"

    def programs(self) -> Iterable[tuple[str, Sequence[str | Path]]]:
        """etcd, then the API server."""
        assets = Path(os.environ[ASSETS])
        yield (
            "etcd",
            [
                assets / "etcd",
                *("--data-dir", self.folder / "etcd", "--unsafe-no-fsync"),
                *("--listen-client-urls", "http://127.0.0.1:2379"),
                *("--advertise-client-urls", "http://127.0.0.1:2379"),
                *("--listen-peer-urls", "http://127.0.0.1:2380"),
            ],
        )
        yield "kube-apiserver", [assets / "kube-apiserver", *self._options()]

    def _options(self) -> Iterable[str]:
        tokens, policy = self.folder / "tokens.csv", self.folder / "audit.json"
        tokens.write_text(f'{self.admin_token},admin,admin,"system:masters"\n')
        policy.write_text(json.dumps(_POLICY))
        own = self.authority
        options = {
            "etcd-servers": "http://127.0.0.1:2379",
            "bind-address": self.address,
            "secure-port": PORT,
            "advertise-address": "192.0.2.1",
            "endpoint-reconciler-type": "none",
            "tls-cert-file": own.certificate,
            "tls-private-key-file": own.key,
            "cert-dir": self.folder / "certificates",
            "token-auth-file": tokens,
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": own.signer,
            "service-account-signing-key-file": own.signer,
            "service-cluster-ip-range": "10.96.0.0/16",
            "disable-admission-plugins": "ServiceAccount",
            "audit-log-path": self.audit,
            "audit-policy-file": policy,
            "profiling": "false",
        }
        return [f"--{name}={value}" for name, value in options.items()]


def make_kubeconfig(folder: Path, server: str, ca: Path, token_file: Path) -> Path:
    """A kubeconfig that names a token by its file, as clusters' own agents have it."""
    data = base64.b64encode(ca.read_bytes()).decode()
    made = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "podwired"}}],
        "clusters": [
            {"name": "tests", "cluster": {"server": server, "certificate-authority-data": data}}
        ],
        "users": [{"name": "podwired", "user": {"tokenFile": str(token_file)}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(made))  # JSON is YAML
    path.chmod(0o600)
    return path
