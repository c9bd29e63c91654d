"""What NetworkPolicy means, as its specification has it (networking.k8s.io/v1): slow and plain.

It judges objects as the API has them, and knows nothing of podwire's own values.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

Object = dict[str, Any]


def is_allowed(
    cluster: Object, source: Object | str, target: Object | str, protocol: str, port: int
) -> bool:
    """Whether a connection is allowed. An end is a Pod, or an address outside of the cluster."""
    if source is target:
        return True
    return _side(cluster, source, target, protocol, port, "Egress") and _side(
        cluster, target, source, protocol, port, "Ingress"
    )


def _side(
    cluster: Object, pod: Object | str, other: Object | str, protocol: str, port: int, kind: str
) -> bool:
    if isinstance(pod, str):
        return True
    selecting = [
        p
        for p in cluster["policies"]
        if p["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and kind in _types(p["spec"])
        and _selects(p["spec"].get("podSelector", {}), pod["metadata"]["labels"])
    ]
    if not selecting:
        return True
    key, peers = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
    target = pod if kind == "Ingress" else other
    return any(
        _peers_match(cluster, p, rule.get(peers), other)
        and _ports_match(rule.get("ports"), target, protocol, port)
        for p in selecting
        for rule in p["spec"].get(key) or []
    )


def _types(spec: Object) -> list[str]:
    if spec.get("policyTypes"):
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or []:
        key, operator = each["key"], each["operator"]
        if operator == "In" and not (key in labels and labels[key] in each["values"]):
            return False
        if operator == "NotIn" and key in labels and labels[key] in each["values"]:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def _peers_match(
    cluster: Object, policy: Object, peers: list[Object] | None, other: Object | str
) -> bool:
    if not peers:
        return True
    return any(_peer_matches(cluster, policy, peer, other) for peer in peers)


def _peer_matches(cluster: Object, policy: Object, peer: Object, other: Object | str) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        addresses = (
            [other] if isinstance(other, str) else [i["ip"] for i in other["status"]["podIPs"]]
        )
        return any(
            ip_address(a) in ip_network(block["cidr"])
            and not any(ip_address(a) in ip_network(e) for e in block.get("except") or [])
            for a in addresses
        )
    if isinstance(other, str):
        return False
    namespace = other["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        labels = {
            "kubernetes.io/metadata.name": namespace,
            **cluster["namespaces"].get(namespace, {}),
        }
        if not _selects(peer["namespaceSelector"], labels):
            return False
    elif namespace != policy["metadata"]["namespace"]:
        return False
    return _selects(peer.get("podSelector") or {}, other["metadata"]["labels"])


def _ports_match(
    ports: list[Object] | None, target: Object | str, protocol: str, port: int
) -> bool:
    if not ports:
        return True
    return any(_port_matches(each, target, protocol, port) for each in ports)


def _port_matches(each: Object, target: Object | str, protocol: str, port: int) -> bool:
    if each.get("protocol", "TCP") != protocol:
        return False
    wanted = each.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        if isinstance(target, str):
            return False
        named = target["spec"]["containers"][0]["ports"]
        return any(
            p["name"] == wanted and p["containerPort"] == port and p["protocol"] == protocol
            for p in named
        )
    first = int(wanted)
    return first <= port <= int(each.get("endPort", first))
