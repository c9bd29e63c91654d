"""The daemon of a node as podwire.yaml runs it: in containers of its image, which podman starts.

What podman is given is read from the manifest: command, rights, mounts. Of the kubelet's part here
are the service account, and the folders of the node that the pod mounts.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT
from tests.cluster.apiserver import MANIFEST
from tests.pytest_netns import Node

TOOL = ROOT / "tests/tools/image"
ARCHIVE = ROOT / "build/image/podwire.tar"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_OWN = ("/run/podwire", "/var/lib/podwire", "/proc/sys/net")
"""Folders that are a test node's own; of others it gets stand-ins."""
# cgroups off and limits as they are: containers come up without privileges that CI may lack.
_CONTAINERS = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "/var/lib/containers"
runroot = "/run/containers"
[storage.options]
additionalimagestores = ["{store}"]
"""

Object = dict[str, Any]


def read_manifest(kind: str, name: str) -> Object:
    """An object of podwire.yaml."""
    found = yaml.safe_load_all(MANIFEST.read_text())
    [one] = [d for d in found if d["kind"] == kind and d["metadata"]["name"] == name]
    return dict(one)


def build_image() -> Path:
    """Build what is missing; the folder of the store of images."""
    done = subprocess.run([TOOL, "build"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = subprocess.run([TOOL, "podman"], capture_output=True, text=True, check=True)
    argv = words.stdout.split()
    return Path(argv[argv.index("--root") + 1])


@dataclass
class DaemonPod:
    """The pod of the DaemonSet on one node.

    folder: of the test's own. environment: what the kubelet adds to every pod's. account: the
    files of the service account.
    """

    node: Node
    name: str
    folder: Path
    store: Path
    environment: dict[str, str]
    account: dict[str, str]
    spec: Object = field(
        default_factory=lambda: dict(
            read_manifest("DaemonSet", "podwired")["spec"]["template"]["spec"]
        )
    )

    def __post_init__(self) -> None:
        (self.folder / "containers.conf").write_text(_CONTAINERS)
        (self.folder / "storage.conf").write_text(_STORAGE.format(store=self.store))
        for name, text in self.account.items():
            path = self.folder / "account" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        # crun refuses some arrangements of cgroups even when told to use none: it finds none.
        self.node.run(["mount", "-t", "tmpfs", "podwire-test", "/sys/fs/cgroup"])

    def podman(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman on the node."""
        env = {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "HOME": str(self.folder),
        }
        return self.node.run(["podman", *words], env=env, check=check)

    def install(self) -> None:
        """Run the init containers, one after the other."""
        for container in self.spec["initContainers"]:
            self.podman("run", "--rm", *self._options(container))

    def start(self) -> None:
        """Start the daemon."""
        [container] = self.spec["containers"]
        self.podman("run", "--detach", "--name", "podwired", *self._options(container))

    def stop(self) -> int:
        """End the daemon as the kubelet does; its exit status."""
        seconds = str(self.spec["terminationGracePeriodSeconds"])
        self.podman("stop", "--time", seconds, "podwired")
        found = self.podman("inspect", "podwired", "--format", "{{.State.ExitCode}}").stdout
        self.podman("rm", "podwired")
        return int(found)

    def end(self) -> None:
        """Remove all containers, whatever they do. Repeatable."""
        self.podman("rm", "--all", "--force", "--time", "0", check=False)

    @property
    def log(self) -> str:
        """What the daemon logged."""
        done = self.podman("logs", "podwired", check=False)
        return done.stdout + done.stderr

    def execute(self, *words: str) -> str:
        """`kubectl exec` into the daemon's container."""
        return self.podman("exec", "podwired", *words).stdout

    def probe(self, kind: str) -> bool:
        """Whether a probe of the daemon succeeds, asked as the kubelet asks."""
        [container] = self.spec["containers"]
        command = container[kind]["exec"]["command"]
        return self.podman("exec", "podwired", *command, check=False).returncode == 0

    def place(self, path: str) -> Path:
        """Where a folder of the node is that the pod mounts."""
        return Path(path) if path in _OWN else self.folder / "host" / path.lstrip("/")

    # -- from the manifest to podman's words

    def _options(self, container: Object) -> list[str]:
        assert self.spec["hostNetwork"]
        assert "hostPID" not in self.spec
        words = ["--network", "host", *self._rights(container), *self._mounts(container)]
        for name, value in {**self.environment, **self._variables(container)}.items():
            words += ["--env", f"{name}={value}"]
        program, *rest = container.get("command") or [None]
        if program:
            words += ["--entrypoint", json.dumps([program])]
        return [*words, container["image"], *rest]

    def _rights(self, container: Object) -> list[str]:
        shared, own = self.spec["securityContext"], container["securityContext"]
        assert shared["seccompProfile"] == {"type": "RuntimeDefault"}  # and podman's default
        assert "privileged" not in own
        words = ["--user", f"{shared['runAsUser']}:{shared['runAsGroup']}"]
        if own["allowPrivilegeEscalation"] is False:
            words += ["--security-opt", "no-new-privileges"]
        if own["readOnlyRootFilesystem"]:
            words += ["--read-only", "--read-only-tmpfs=false"]
        words += [f"--cap-drop={name}" for name in own["capabilities"]["drop"]]
        return words + [f"--cap-add={name}" for name in own["capabilities"].get("add", [])]

    def _variables(self, container: Object) -> dict[str, str]:
        fields = {"spec.nodeName": self.name}
        return {
            one["name"]: one.get("value") or fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container.get("env", [])
        }

    def _mounts(self, container: Object) -> list[str]:
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        words = [f"--volume={self.folder / 'account'}:{ACCOUNT}:ro"]
        for mount in container["volumeMounts"]:
            source = self._source(volumes[mount["name"]])
            end = ":ro" if mount.get("readOnly") else ""
            words.append(f"--volume={source}:{mount['mountPath']}{end}")
        return words

    def _source(self, volume: Object) -> Path:
        if "configMap" in volume:
            place = self.folder / "config"
            place.mkdir(exist_ok=True)
            for name, text in read_manifest("ConfigMap", volume["configMap"]["name"])[
                "data"
            ].items():
                (place / name).write_text(text)
            return place
        place = self.place(volume["hostPath"]["path"])
        if volume["hostPath"]["type"] == "DirectoryOrCreate":
            self.node.run(["mkdir", "-p", place])
        return place
