"""Puts podwire.yaml together, for one `kubectl apply`, and uninstall.yaml: `make manifest`.

The parts are the files beside this one and the dashboard; they are the source.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import indent

import yaml

HERE = Path(__file__).resolve().parent
DASHBOARD = HERE.parents[1] / "conf" / "grafana-dashboard.json"
HEAD = """\
# podwire on a Kubernetes cluster (1.30 or later): kubectl apply -f podwire.yaml
# Put together by packaging/kubernetes/render.py from the files beside it; change those.
# A cluster of your own needs `image`, twice at the end; without kubeadm also `clusterCIDRs`.
"""
UNINSTALL_HEAD = """\
# Takes podwire off every node, after `kubectl -n podwire delete daemonset podwired` and before
# `kubectl delete --ignore-not-found -f podwire.yaml`. A node where pods of podwire run yet is left
# as it is; the log of its pod (container uninstall) names them. Made by render.py.
"""
SIDECAR = {"grafana_dashboard": "1"}
"""The label by which Grafana's sidecar finds dashboards."""


def render() -> str:
    """The whole manifest. The daemons come last: what they need is there before them."""
    settings = (HERE / "podwired.yaml").read_text()
    dashboard = json.dumps(json.loads(DASHBOARD.read_text()), separators=(",", ":"))
    parts = [
        (HERE / "rbac.yaml").read_text(),
        (HERE / "crd.yaml").read_text(),
        config_map("podwired", "podwired.yaml", settings),
        config_map("podwire-dashboard", "podwire.json", dashboard, SIDECAR),
        (HERE / "daemonset.yaml").read_text(),
    ]
    return HEAD + "---\n".join(parts)


def config_map(name: str, key: str, text: str, labels: dict[str, str] | None = None) -> str:
    """A ConfigMap of one file in podwire's namespace."""
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: podwire\n"
    if labels:
        head += f"  labels: {json.dumps(labels)}\n"
    return f"{head}data:\n  {key}: |\n{indent(text.rstrip(), '    ')}\n"


def render_uninstall() -> str:
    """A DaemonSet with the daemon's rights and mounts, that undoes what it did on its node."""
    made = yaml.safe_load((HERE / "daemonset.yaml").read_text())
    made["metadata"]["name"] = name = "podwire-uninstall"
    labels = {"app.kubernetes.io/name": name}
    made["spec"]["selector"]["matchLabels"] = dict(labels)
    made["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "100%"
    template = made["spec"]["template"]
    template["metadata"] = {"labels": labels}
    pod = template["spec"]
    pod["terminationGracePeriodSeconds"] = 1
    [daemon] = pod["containers"]
    kept = ("image", "imagePullPolicy", "env", "securityContext", "volumeMounts")
    command = ["podwired", "uninstall", "--purge"]
    work = {"name": "uninstall", "command": command, **{key: daemon[key] for key in kept}}
    rest = {key: daemon[key] for key in ("image", "imagePullPolicy")}
    rest["securityContext"] = {**daemon["securityContext"], "capabilities": {"drop": ["ALL"]}}
    pod["initContainers"] = [work]
    pod["containers"] = [{"name": "done", "command": ["sleep", "infinity"], **rest}]
    return UNINSTALL_HEAD + str(yaml.safe_dump(made, sort_keys=False))


TARGETS = {"podwire.yaml": render, "uninstall.yaml": render_uninstall}

if __name__ == "__main__":
    for target, make in TARGETS.items():
        (HERE / target).write_text(make())
