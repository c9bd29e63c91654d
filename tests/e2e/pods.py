"""Pods of the tests: servers that answer with their names."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.images import BUSYBOX

SCRIPT = "mkdir /www; echo {name} >/www/index.html; exec httpd -f -p 80 -h /www"


def server(name: str, node: str = "", **port: object) -> str:
    """The manifest of a pod that answers with its name. node: where it is, if not the kubelet's."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SCRIPT.format(name=name)],
        "ports": [{"containerPort": 80, **port}],
    }
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {**spec, **({"nodeName": node} if node else {})},
        }
    )


def addresses_of(pod: Any) -> list[str]:
    """The addresses of a pod, by its object."""
    return [entry["ip"] for entry in pod["status"].get("podIPs", ())]


def is_ready(pod: Any) -> bool:
    """Whether a pod is ready, by its object."""
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def url(address: str, port: int = 80, scheme: str = "http") -> str:
    """The URL of a server."""
    host = f"[{address}]" if ":" in address else address
    return f"{scheme}://{host}:{port}/"


def read(target: str, seconds: float = 5) -> str:
    """What an HTTP server answers; OSError when it does not."""
    place, done = urlsplit(target), "not connected"
    connection = http.client.HTTPConnection(place.netloc, timeout=seconds)
    try:
        connection.connect()
        done = "connected"
        connection.request("GET", place.path)
        return connection.getresponse().read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{target}, {done}: {error!r}") from error
    finally:
        connection.close()
