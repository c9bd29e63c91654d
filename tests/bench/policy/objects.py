"""Clusters of policies and peers, as the files of a node have them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

Object = dict[str, Any]
SPACE, PORT = "bench", 80
_FIRST = ip_address("10.200.0.1")


def policy(name: str, *peers: Object, port: int = 0, selects: str = "") -> Object:
    """A policy of one rule. port: 0 for all. selects: a value of the label app; empty: all pods."""
    chosen = {"matchLabels": {"app": selects}} if selects else {}
    rule = {"from": list(peers)} | ({"ports": [{"port": port}]} if port else {})
    return {
        "kind": "NetworkPolicy",
        "metadata": {"namespace": SPACE, "name": name},
        "spec": {"podSelector": chosen, "policyTypes": ["Ingress"], "ingress": [rule]},
    }


def client(address: str) -> Object:
    """The peer that connects."""
    return {"ipBlock": {"cidr": f"{address}/32"}}


def by_role(role: str) -> Object:
    """Peers with that role."""
    return {"podSelector": {"matchLabels": {"role": role}}}


def pod(number: int, role: str) -> Object:
    """A pod of another node."""
    return {
        "kind": "Pod",
        "metadata": {"namespace": SPACE, "name": f"peer-{number}", "labels": {"role": role}},
        "spec": {},
        "status": {"podIPs": [{"ip": str(_FIRST + number)}]},
    }


def many_policies(count: int, address: str) -> list[Object]:
    """So many policies that all select the pod; one of them lets the client connect."""
    others = [policy(f"p{n}", by_role(f"r{n}"), port=1000 + n % 1000) for n in range(count - 1)]
    return [
        *others,
        policy("client", client(address)),
        *(pod(n, f"r{n}") for n in range(count - 1)),
    ]


def many_peers(count: int, address: str) -> list[Object]:
    """One policy with so many peers, and the client."""
    return [
        policy("client", by_role("peer"), client(address)),
        *(pod(n, "peer") for n in range(count)),
    ]


def write(folder: Path, name: str, things: Iterable[Object]) -> None:
    """A file of objects, replaced as a whole."""
    folder.mkdir(exist_ok=True)
    fresh = folder / f"{name}.new"
    fresh.write_text(json.dumps({"kind": "List", "items": [*things]}))
    fresh.rename(folder / f"{name}.json")
