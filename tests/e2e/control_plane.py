"""The control plane of a cluster: etcd, API server, controllers and scheduler, on the underlay."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.apiserver import PORT, ApiServer, kubeadm_config, make_kubeconfig
from tests.e2e.pods import url
from tests.e2e.programs import FOLDER, kube
from tests.pytest_netns import Underlay
from tests.pytest_netns.underlay import Family

CLUSTER: dict[Family, str] = {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}
SERVICES: dict[Family, str] = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
API_SERVICE = "10.96.0.1"
"""Where IPv4 is the first family."""
USERS = {
    "kube-controller-manager": ("system:kube-controller-manager", "system:masters"),
    "kube-scheduler": ("system:kube-scheduler", "system:masters"),
    "kube-proxy": ("system:kube-proxy", ""),
}
COMMAND_SECONDS = 180.0


class ControlPlane(ApiServer):
    """Everything but nodes. families: of the cluster. names: of the nodes that may join."""

    kind = "kube-apiserver"

    def __init__(
        self, underlay: Underlay, folder: Path, families: Sequence[Family], names: Sequence[str]
    ) -> None:
        super().__init__(underlay.ns, folder, underlay.gateway(families[0]))
        self.pods = ",".join(CLUSTER[family] for family in families)
        """The prefixes of all pods, as Kubernetes' programs take them."""
        self._services = ",".join(SERVICES[family] for family in families)
        nodes = {name: (f"system:node:{name}", "system:nodes") for name in names}
        users = {**USERS, **nodes, "admin": ("admin", "system:masters")}
        self._tokens = {name: secrets.token_hex(16) for name in users}
        lines = [
            f'{self._tokens[name]},{user},{user},"{groups}"'
            for name, (user, groups) in users.items()
        ]
        lines.append(f'{self.admin_token},tests,tests,"system:masters"')
        (folder / "tokens.csv").write_text("\n".join(lines) + "\n")

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig of a component or of a node."""
        folder = self.folder / name
        if (folder / "kubeconfig").exists():
            return folder / "kubeconfig"
        folder.mkdir()
        (folder / "token").write_text(self._tokens[name])
        server = url(self.address, PORT, "https")
        return make_kubeconfig(folder, server, self.authority.ca, folder / "token")

    def start(self) -> None:
        """Start it; all of it serves, or is about to."""
        super().start()
        self.admin.apply(kubeadm_config(self.pods)).expect(200, 201)
        for name in ("kube-controller-manager", "kube-scheduler"):
            options = ["--bind-address=127.0.0.1", "--leader-elect=false"]
            options += self._controller_options() if name == "kube-controller-manager" else []
            self.spawn(name, [kube(name), f"--kubeconfig={self.kubeconfig(name)}", *options])

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nothing of it runs, and what it wrote stays; then it is started again."""
        self.stop(signal.SIGKILL)
        yield
        self.start()

    def programs(self) -> Iterable[tuple[str, Sequence[str | Path]]]:
        """etcd, then the API server."""
        yield (
            "etcd",
            [
                FOLDER / "etcd",
                *("--data-dir", self.folder / "etcd", "--unsafe-no-fsync"),
                *("--listen-client-urls", "http://127.0.0.1:2379"),
                *("--advertise-client-urls", "http://127.0.0.1:2379"),
                *("--listen-peer-urls", "http://127.0.0.1:2380"),
            ],
        )
        yield "kube-apiserver", [kube("kube-apiserver"), *self._options()]

    def _options(self) -> Iterable[str]:
        own = self.authority
        options = {
            "etcd-servers": "http://127.0.0.1:2379",
            "bind-address": self.address,
            "advertise-address": self.address,
            "secure-port": PORT,
            "tls-cert-file": own.certificate,
            "tls-private-key-file": own.key,
            "cert-dir": self.folder / "certificates",
            "token-auth-file": self.folder / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": own.signer,
            "service-account-signing-key-file": own.signer,
            "service-cluster-ip-range": self._services,
            "kubelet-preferred-address-types": "InternalIP",
            "profiling": "false",
        }
        return [f"--{name}={value}" for name, value in options.items()]

    def _controller_options(self) -> list[str]:
        options = {
            "allocate-node-cidrs": "true",
            "cluster-cidr": self.pods,
            "service-cluster-ip-range": self._services,
            "root-ca-file": self.authority.ca,
            "service-account-private-key-file": self.authority.signer,
        }
        return [f"--{name}={value}" for name, value in options.items()]

    def kubectl(self, *words: str | Path, stdin: str = "", check: bool = True) -> str:
        """What kubectl prints."""
        argv = ["nsenter", f"--net={self.ns.path}", "--", str(kube("kubectl"))]
        config = f"--kubeconfig={self.kubeconfig('admin')}"
        done = subprocess.run(
            [*argv, config, *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, (words, done.stderr, done.stdout)
        return done.stdout

    def get(self, *words: str) -> dict[str, object]:
        """What `kubectl get` finds."""
        return dict(json.loads(self.kubectl("get", *words, "-o", "json")))

    def await_ready(self, *words: str, seconds: float = 180) -> None:
        """Wait until objects have the condition Ready."""
        began = time.monotonic()
        while True:
            left = began + seconds - time.monotonic()
            assert left > 0, self.kubectl("get", "pods", "-A", "-o", "wide")
            limit = int(min(left, COMMAND_SECONDS / 2)) + 1
            rest = ["--for=condition=Ready", f"--timeout={limit}s", *words]
            if self.kubectl("wait", *rest, check=False):
                return
            time.sleep(0.5)  # what is waited for may not exist yet
