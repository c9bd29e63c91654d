"""Puts podwire.yaml together, for one `kubectl apply`: `python3 packaging/kubernetes/render.py`.

The parts are the files beside this one and the dashboard; they are the source.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import indent

HERE = Path(__file__).resolve().parent
DASHBOARD = HERE.parents[1] / "conf" / "grafana-dashboard.json"
TARGET = HERE / "podwire.yaml"
HEAD = """\
# podwire on a Kubernetes cluster (1.30 or later): kubectl apply -f podwire.yaml
# Put together by packaging/kubernetes/render.py from the files beside it; change those.
# A cluster of your own needs two lines: `clusterCIDRs` below, and `image` twice at the end.
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


if __name__ == "__main__":
    TARGET.write_text(render())
