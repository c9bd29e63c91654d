"""A machine of the cluster: a node with process IDs of its own, containerd and kubelet."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from tests.bench.daemon import family
from tests.e2e.control_plane import ControlPlane
from tests.e2e.images import PAUSE
from tests.e2e.programs import FOLDER, kube
from tests.pytest_netns import Node

CGROUPS = Path("/sys/fs/cgroup")
GROUP = "podwire-e2e"
_NUMBERS = itertools.count(1)
_CTR = (FOLDER / "ctr", "--namespace", "k8s.io")
MAX_PODS = 150
KUBELET_PORT = 10255
"""The kubelet tells anyone on its node of its pods there."""
STATIC_PODS = "/etc/kubernetes/manifests"
"""The folder of pods that the kubelet starts without the API server."""
TUNED = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet sets on its machine, which is not the node's alone (setupKernelTunables)."""
_INIT = """
set -e
hostname {name}
mount --make-rshared /
mount -t tmpfs podwire-test /run/netns
mount -t tmpfs podwire-test /var/log
for folder in etc opt; do
    place=/run/overlay/$folder
    mkdir -p $place/upper $place/work
    layers=lowerdir=/$folder,upperdir=$place/upper,workdir=$place/work
    mount -t overlay -o $layers podwire-test /$folder
done
rm -rf /etc/cni /opt/cni
mkdir -p /etc/cni/net.d /opt/cni/bin {static} /var/lib/containerd /var/lib/kubelet
mount --bind {folder}/containerd /var/lib/containerd
mount --bind {folder}/kubelet /var/lib/kubelet
: >/etc/resolv.conf
{tuned}
touch {folder}/ready
exec sleep infinity
"""
_CONTAINERD = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


class Machine:
    """A node that may join the cluster of a plane, if any.

    folder: of its own, on a disk. proxy: the mode of its kube-proxy.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        folder: Path,
        plane: ControlPlane | None = None,
        proxy: str = "nftables",
    ) -> None:
        self._proxy = proxy
        self.node, self.name, self.folder, self._plane = node, name, folder, plane
        self._processes: list[subprocess.Popen[bytes]] = []
        self._init = 0

    def boot(self, images: Sequence[Path], more: str = "") -> None:
        """Start it and its container runtime, with these images at hand.

        more: settings of containerd.
        """
        for place in ("containerd", "kubelet"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        _make_cgroups(self.name)
        tuned = "\n".join(
            f"echo {value} >/run/tuned && cp /run/tuned /run/{path.replace('/', '.')}"
            f" && mount --bind /run/{path.replace('/', '.')} /proc/sys/{path}"
            for path, value in TUNED.items()
        )
        script = _INIT.format(name=self.name, folder=self.folder, static=STATIC_PODS, tuned=tuned)
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        leader = self.spawn("init", [*self.node.enter, *words, "sh", "-c", script])
        self._await(lambda: (self.folder / "ready").exists(), "init")
        children = Path(f"/proc/{leader.pid}/task/{leader.pid}/children")
        self._init = int(children.read_text().split()[0])
        self._start_containerd(more)
        self.load(images)

    def join(self) -> None:
        """Start what makes it a node of the cluster."""
        assert self._plane is not None, "there is no cluster"
        self._start_kubelet(self._plane)
        self._start_proxy(self._plane)

    def load(self, images: Sequence[Path]) -> None:
        """Take these images in."""
        for image in images:
            self.ctr("images", "import", image)

    def ctr(self, *words: str | Path) -> str:
        """What `ctr` prints of the kubelet's containers."""
        return self.run(*_CTR, *words)

    @property
    def enter(self) -> list[str]:
        """Words before a command that runs on it."""
        return ["nsenter", f"--target={self._init}", "--mount", "--uts", "--net", "--pid", "--"]

    def run(self, *words: str | Path, check: bool = True) -> str:
        """What a command on it prints."""
        done = subprocess.run(
            [*self.enter, *words], env=self._environment(), capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.stderr, done.stdout)
        return done.stdout

    def stop(self) -> None:
        """Switch it off: everything on it ends at once. Repeatable."""
        if self._init:
            with suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
            self._init = 0
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.wait()
        _remove_cgroups(self.name)

    def _start_kubelet(self, plane: ControlPlane) -> None:
        conf = self.folder / "kubelet.json"
        conf.write_text(json.dumps(self._kubelet_settings()))
        addresses = ",".join(self.node.addresses.values())
        self.spawn(
            "kubelet",
            [
                *self.enter, kube("kubelet"), f"--config={conf}",
                f"--kubeconfig={plane.kubeconfig(self.name)}",
                f"--hostname-override={self.name}", f"--node-ip={addresses}",
            ],
        )  # fmt: skip

    def namespace_of(self, address: str) -> str:
        """The network namespace of the pod that has an address, for nsenter."""
        places = self.run("find", "/run/netns", "-type", "f").split()
        for place in places:
            listed = self.run("nsenter", f"--net={place}", "ip", "-o", "address", check=False)
            if f" {address}/" in listed:
                return f"/proc/{self._init}/root{place}"
        raise AssertionError(f"no pod of {self.name} has {address}: {places}")

    def in_daemon(self, *words: str, check: bool = True) -> str:
        """What a command in the daemon's container prints; the API server is not asked."""
        [container] = self.running("container.name", "podwired")
        name = f"tests-{next(_NUMBERS)}"
        inside = ("tasks", "exec", "--exec-id", name, container, *words)
        return self.run(*_CTR, *inside, check=check)

    def created(self, name: str) -> float:
        """When its only container of that name was made, in seconds since the epoch."""
        [container] = self.containers("container.name", name)
        info = json.loads(self.ctr("containers", "info", container))
        return datetime.fromisoformat(info["CreatedAt"]).timestamp()

    def containers(self, label: str, value: str) -> list[str]:
        """Those that the kubelet gave a label."""
        chosen = f'labels."io.kubernetes.{label}"=={value}'
        return self.ctr("containers", "list", "--quiet", chosen).split()

    def running(self, label: str, value: str) -> set[str]:
        """Those of them that run; of a start that the kubelet repeated others are left."""
        tasks = self.ctr("tasks", "list").splitlines()
        found = {task.split()[0] for task in tasks if "RUNNING" in task}
        return found.intersection(self.containers(label, value))

    def troubles(self) -> list[str]:
        """What `podwirectl status` finds."""
        text = self.in_daemon("podwirectl", "status", "-o", "json", check=False)
        return list(json.loads(text)["troubles"])

    @property
    def processes(self) -> list[int]:
        """All processes of its pods, as the machine of the tests counts them."""
        return family(self._init)

    def write(self, path: str, text: str) -> None:
        """Write a file on it."""
        inside = [*self.enter, "tee", path]
        subprocess.run(inside, input=text, text=True, stdout=subprocess.DEVNULL, check=True)

    def log(self, name: str) -> str:
        """The end of what a program of it logged."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    # -- its programs

    def _start_containerd(self, more: str) -> None:
        conf = self.folder / "containerd.toml"
        conf.write_text(_CONTAINERD.format(pause=PAUSE) + more)
        self.spawn("containerd", [*self.enter, FOLDER / "containerd", "--config", conf])
        self._await(lambda: bool(self.run(FOLDER / "ctr", "version", check=False)), "containerd")

    def _start_proxy(self, plane: ControlPlane) -> None:
        conf = self.folder / "kube-proxy.json"
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self._proxy,
            "hostnameOverride": self.name,
            "clusterCIDR": plane.pods,
            "clientConnection": {"kubeconfig": str(plane.kubeconfig("kube-proxy"))},
            # These are the machine's.
            "conntrack": {
                "maxPerCore": 0, "min": 0,
                "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
            "oomScoreAdj": 0,
        }  # fmt: skip
        conf.write_text(json.dumps(settings))
        self.spawn("kube-proxy", [*self.enter, kube("kube-proxy"), f"--config={conf}"])

    def _kubelet_settings(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # Of a cluster that is thrown away, on a network of this machine's.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{GROUP}/{self.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "resolvConf": "/etc/resolv.conf",
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": MAX_PODS,
            "readOnlyPort": KUBELET_PORT,
            "staticPodPath": STATIC_PODS,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
            "nodeStatusUpdateFrequency": "5s",
            "enforceNodeAllocatable": ["pods"],
        }  # fmt: skip

    def spawn(self, name: str, argv: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Start a program that ends with the machine; its log is of its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        self._processes.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{FOLDER}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def _await(self, check: object, what: str, seconds: float = 60) -> None:
        assert callable(check)
        until = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < until, f"{what} of {self.name}: {self.log(what)}"
            time.sleep(0.2)


def _controllers() -> list[Path]:
    """The hierarchies of cgroups: one of version 2, or one for each controller of version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    found = Path("/proc/self/mountinfo").read_text().splitlines()
    lines = [shlex.split(line.split(" - ")[0])[4] for line in found if " - cgroup" in line]
    return [Path(line) for line in lines if line.startswith(f"{CGROUPS}/")]


def _make_cgroups(name: str) -> None:
    for root in _controllers():
        place = root
        for part in (GROUP, name):
            parent, place = place, place / part
            place.mkdir(exist_ok=True)
            # Version 1: a new set has no processor, and takes no process.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (place / file).exists() and not (place / file).read_text().strip():
                    (place / file).write_text((parent / file).read_text())


def _remove_cgroups(name: str) -> None:
    for root in _controllers():
        place, until = root / GROUP / name, time.monotonic() + 10
        # A process that was killed stays in its group until it has ended.
        while place.exists() and time.monotonic() < until:
            for folder, _, _ in os.walk(place, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
            time.sleep(0.05)
        with suppress(OSError):  # it is another node's, too
            os.rmdir(root / GROUP)
