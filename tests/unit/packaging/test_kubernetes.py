"""packaging/kubernetes: one manifest, made of its parts; few rights; settings that are valid."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config.load import parse_settings
from tests import ROOT

FOLDER = ROOT / "packaging/kubernetes"
MANIFEST = FOLDER / "podwire.yaml"

Object = dict[str, Any]


def read(kind: str, name: str, space: str = "") -> Object:
    """An object of the manifest. space: its namespace, of several that have one name."""
    found = yaml.safe_load_all(MANIFEST.read_text())
    same = [d for d in found if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    [one] = [d for d in same if space in ("", d["metadata"].get("namespace"))]
    return dict(one)


def pod() -> Object:
    return dict(read("DaemonSet", "podwired")["spec"]["template"]["spec"])


def test_the_manifests_are_those_of_their_parts() -> None:
    targets = runpy.run_path(str(FOLDER / "render.py"))["TARGETS"]
    for name, render in targets.items():
        assert (FOLDER / name).read_text() == render(), "make manifest renews it"


def test_what_uninstalls_has_the_rights_and_the_mounts_of_the_daemon() -> None:
    [made] = yaml.safe_load_all((FOLDER / "uninstall.yaml").read_text())
    spec, own = made["spec"]["template"]["spec"], pod()
    [work], [daemon] = spec["initContainers"], own["containers"]
    for key in ("securityContext", "volumeMounts", "image", "env"):
        assert work[key] == daemon[key]
    assert spec["securityContext"] == own["securityContext"]
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_settings_are_valid_and_name_the_node_by_the_environment() -> None:
    text = read("ConfigMap", "podwired")["data"]["podwired.yaml"]
    settings = parse_settings(text.encode(), "podwired.yaml", {"PODWIRE_NODE": "n1"}, "podwired-x")
    assert settings.node == "n1"
    assert settings.source.kubernetes is not None
    assert (
        settings.source.kubernetes.namespace
        == read("DaemonSet", "podwired")["metadata"]["namespace"]
    )
    assert settings.metrics is not None
    [port] = pod()["containers"][0]["ports"]
    annotations = read("DaemonSet", "podwired")["spec"]["template"]["metadata"]["annotations"]
    assert settings.metrics.listen[1] == port["containerPort"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_no_probe_needs_a_port_or_a_key_of_the_configuration() -> None:
    """`metrics` may be off or elsewhere, and another program may have the port."""
    [daemon] = pod()["containers"]
    asked = {"startupProbe": "alive", "livenessProbe": "alive", "readinessProbe": "ready"}
    for kind, question in asked.items():
        assert daemon[kind]["exec"] == {"command": ["podwire-probe", question]}
        assert not {"httpGet", "tcpSocket", "grpc"} & daemon[kind].keys()
    image = (ROOT / "packaging/image/Containerfile").read_text()
    assert "COPY packaging/image/podwire-probe /opt/podwire/venv/bin/\n" in image
    [place] = [one["value"] for one in daemon["env"] if one["name"] == "PODWIRE_HEALTH"]
    # The pod's own, unlike the node's with hostIPC: it can be written, and goes with the pod.
    assert Path(place).parent == Path("/dev/shm")


def test_the_image_is_that_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    spec = pod()
    images = {c["image"] for c in (*spec["containers"], *spec["initContainers"])}
    assert images == {f"localhost/podwire:{version}"}


def test_no_container_has_a_right_that_it_does_not_need() -> None:
    spec = pod()
    assert not {"hostPID", "hostIPC"} & spec.keys()
    for container in (*spec["containers"], *spec["initContainers"]):
        rights = dict(container["securityContext"])
        more = ["NET_ADMIN", "SYS_ADMIN", "NET_BROADCAST"]
        needed = [*(more if container["name"] == "podwired" else ()), "DAC_OVERRIDE"]
        assert rights.pop("capabilities") == {"drop": ["ALL"], "add": needed}
        assert rights == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}


def test_the_account_reads_what_it_needs_and_writes_podwires_own_objects_alone() -> None:
    nodes, pods, policies = read("ClusterRole", "podwired")["rules"]
    assert (nodes["resources"], nodes["verbs"]) == (["nodes"], ["get", "list", "watch"])
    assert (pods["resources"], pods["verbs"]) == (["pods", "namespaces"], ["list", "watch"])
    assert (policies["resources"], policies["verbs"]) == (["networkpolicies"], ["list", "watch"])
    [own] = read("Role", "podwired", "podwire")["rules"]
    assert (own["apiGroups"], own["resources"]) == (["podwire.dev"], ["nodenetworks"])
    [subnet] = read("Role", "podwired", "kube-system")["rules"]
    assert (subnet["resources"], subnet["verbs"]) == (["configmaps"], ["get"])
    assert subnet["resourceNames"] == ["kubeadm-config"]


@pytest.mark.parametrize("plugin", ["flannel", "kindnet"])
def test_the_command_of_a_migration_gives_settings_for_it(plugin: str) -> None:
    page = (ROOT / "docs/migration.md").read_text()
    [script] = re.findall(rf"^    sed '(s/.*migrateFrom: {plugin}.*)' \\$", page, re.MULTILINE)
    done = subprocess.run(["sed", script, MANIFEST], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    assert len(objects) == len(list(yaml.safe_load_all(MANIFEST.read_text())))
    [text] = [d["data"]["podwired.yaml"] for d in objects if "podwired.yaml" in d.get("data", {})]
    settings = parse_settings(text.encode(), "podwired.yaml", {"PODWIRE_NODE": "n1"}, "x")
    assert settings.migrate_from == plugin
    assert settings.conflist is not None
    assert settings.conflist.exclusive
