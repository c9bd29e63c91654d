"""Objects of the Kubernetes API as facts, and facts as objects.

The objects are those of networking.k8s.io/v1 and core/v1, of the API or in files. A policy with a
part that cannot be honoured lets nothing through to the pods that it selects, in the directions
that it limits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import chain
from typing import Any

from daemon.policy.model import (
    PORT_MAX,
    Facts,
    IpBlock,
    Key,
    NamespaceFacts,
    Peer,
    PodFacts,
    PodPeers,
    Policy,
    Ports,
    Rule,
)
from daemon.policy.object_fields import UnusableField, mapping_of, sequence_of, text_of
from daemon.policy.selectors import Selector, parse_labels, parse_selector
from kernel.model import IPAddress, IPNetwork
from kernel.nftables.policy_rules import PROTOCOLS, Direction

MONITOR = "podwire.dev/policy-mode"
"""Annotation of a policy or a namespace; `monitor`: nothing is dropped, all is reported."""
_PORTS_MAX = 20_000
_NUMBERS = {name.upper(): number for number, name in PROTOCOLS.items()}
_DIRECTIONS: Mapping[str, Direction] = {"Ingress": "ingress", "Egress": "egress"}
_ENDED = ("Succeeded", "Failed")
_LISTS = ("List", "NetworkPolicyList", "PodList", "NamespaceList")


def facts_of(things: Iterable[Any]) -> Facts:
    """What objects of all kinds say. Raises UnusableField for what is no object that is known."""
    policies: dict[tuple[str, str], Policy] = {}
    namespaces: dict[str, NamespaceFacts] = {}
    pods: dict[tuple[str, str], PodFacts] = {}
    for thing in _each(things):
        match mapping_of(thing, "object").get("kind"):
            case "NetworkPolicy":
                policy = parse_policy(thing)
                policies[policy.key] = policy
            case "Namespace":
                namespace = parse_namespace_facts(thing)
                namespaces[namespace.name] = namespace
            case "Pod":
                if pod := parse_pod_facts(thing):
                    pods[pod.key] = pod
            case kind:
                raise UnusableField("kind", kind, "must be NetworkPolicy, Namespace or Pod")
    return Facts(policies, namespaces, pods)


def _each(things: Iterable[Any]) -> Iterator[Any]:
    for thing in things:
        if mapping_of(thing, "object").get("kind") in _LISTS:
            yield from sequence_of(thing.get("items"), "items")
        elif thing is not None:
            yield thing


def render_facts(facts: Facts) -> bytes:
    """A file of these facts, an object in each line."""
    # One after the other: all of a large cluster would be in memory together.
    things = chain(
        map(_render_namespace, facts.namespaces.values()),
        map(_render_policy, facts.policies.values()),
        map(_render_pod, facts.pods.values()),
    )
    lines = ",\n".join(json.dumps(thing) for thing in things)
    return f'{{"apiVersion": "v1", "kind": "List", "items": [\n{lines}\n]}}\n'.encode()


def _annotations(monitors: bool) -> dict[str, Any]:
    return {"annotations": {MONITOR: "monitor"}} if monitors else {}


def _render_namespace(facts: NamespaceFacts) -> dict[str, Any]:
    metadata = {"name": facts.name, "labels": facts.labels, **_annotations(facts.monitors)}
    return {"kind": "Namespace", "metadata": metadata}


def _render_policy(policy: Policy) -> dict[str, Any]:
    metadata = {
        "namespace": policy.namespace,
        "name": policy.name,
        **_annotations(policy.monitors),
    }
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": json.loads(policy.spec)}


def _render_pod(pod: PodFacts) -> dict[str, Any]:
    ports = [
        {"name": name, "protocol": PROTOCOLS[protocol].upper(), "containerPort": number}
        for (protocol, name), number in pod.ports.items()
    ]
    return {
        "kind": "Pod",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "labels": pod.labels},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIPs": [{"ip": str(address)} for address in pod.addresses]},
    }


# -- one object


def key_of(thing: Any) -> Key:
    """Namespace (empty where it has none) and name of an object. Raises UnusableField."""
    metadata = mapping_of(mapping_of(thing, "object").get("metadata"), "metadata")
    namespace = text_of(metadata.get("namespace", ""), "metadata.namespace", empty=True)
    return sys.intern(namespace), text_of(metadata.get("name"), "metadata.name")


def parse_namespace_facts(thing: Any) -> NamespaceFacts:
    """A Namespace. Raises UnusableField."""
    metadata = mapping_of(thing.get("metadata"), "metadata")
    labels = parse_labels(metadata.get("labels"), "metadata.labels")
    return NamespaceFacts(key_of(thing)[1], labels, _monitors(metadata))


def parse_pod_facts(thing: Any) -> PodFacts | None:
    """A Pod; None where it has ended, or has the node's network. Raises UnusableField."""
    metadata = mapping_of(thing.get("metadata"), "metadata")
    spec, status = (mapping_of(thing.get(key), key) for key in ("spec", "status"))
    if spec.get("hostNetwork") is True or status.get("phase") in _ENDED:
        return None
    labels = parse_labels(metadata.get("labels"), "metadata.labels")
    listed = [
        mapping_of(item, "status.podIPs").get("ip")
        for item in sequence_of(status.get("podIPs"), "status.podIPs")
    ]
    addresses = [_address(ip, "status.podIPs") for ip in listed if ip]
    ports = tuple(_container_ports(spec).items())
    return PodFacts(*key_of(thing), _alike(tuple(labels.items())), tuple(addresses), _alike(ports))


@lru_cache(1024)
def _alike(items: tuple[tuple[Any, Any], ...]) -> Mapping[Any, Any]:
    """One mapping for all pods that have the same labels, or ports."""
    return dict(items)


def _container_ports(spec: Mapping[str, Any]) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    sidecars = (
        item
        for item in sequence_of(spec.get("initContainers"), "spec.initContainers")
        if mapping_of(item, "spec.initContainers").get("restartPolicy") == "Always"
    )
    for container in (*sequence_of(spec.get("containers"), "spec.containers"), *sidecars):
        ports = mapping_of(container, "spec.containers").get("ports")
        for item in sequence_of(ports, "spec.containers.ports"):
            port = mapping_of(item, "spec.containers.ports")
            number, name = port.get("containerPort"), port.get("name")
            protocol = _NUMBERS.get(str(port.get("protocol") or "TCP"))
            if protocol and isinstance(number, int) and 0 < number <= PORT_MAX:
                found.setdefault((protocol, str(name or number)), number)
    return found


def _monitors(metadata: Mapping[str, Any]) -> bool:
    annotations = metadata.get("annotations")
    return isinstance(annotations, dict) and annotations.get(MONITOR) == "monitor"


def parse_policy(thing: Any) -> Policy:
    """A NetworkPolicy. Raises UnusableField where it has no name."""
    key, text = key_of(thing), _json_of(thing.get("spec"))
    policy = Policy(*key, monitors=_monitors(thing["metadata"]), spec=text)
    directions: tuple[Direction, ...] = ("ingress", "egress")
    pods = Selector()
    try:
        # Of what is kept: so the next daemon, which has nothing else, finds the same faults.
        spec = mapping_of(json.loads(text), "spec")
        # Until the selector is read the policy is taken to select all pods of its namespace.
        pods = parse_selector(spec.get("podSelector"), "spec.podSelector")
        mapping_of(spec, "spec", {"podSelector", "policyTypes", "ingress", "egress"})
        directions = _parse_types(spec)
        rules = {d: _parse_rules(spec.get(d), d) for d in directions}
        _check_size(rules)
    except (UnusableField, AttributeError) as error:
        closed: dict[Direction, tuple[Rule, ...]] = dict.fromkeys(directions, ())
        return replace(policy, pods=pods, rules=closed, fault=str(error))
    return replace(policy, pods=pods, rules=rules)


def _json_of(spec: Any) -> str:
    """As JSON. What that cannot hold becomes what no field may be, and so stays a fault."""
    if spec is None:
        return "{}"
    try:
        return json.dumps(spec, default=lambda value: {type(value).__name__: [str(value)]})
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps(str(error))


def _check_size(rules: Mapping[Direction, tuple[Rule, ...]]) -> None:
    for direction, each in rules.items():
        size = sum((len(rule.ports) or 1) * (len(rule.peers) or 1) for rule in each)
        if size > _PORTS_MAX:
            why = f"pairs of a peer and a port are more than {_PORTS_MAX}"
            raise UnusableField(f"spec.{direction}", size, why)


def _parse_types(spec: Mapping[str, Any]) -> tuple[Direction, ...]:
    types = sequence_of(spec.get("policyTypes"), "spec.policyTypes")
    if not types:
        return ("ingress", "egress") if spec.get("egress") else ("ingress",)
    for value in types:
        if not isinstance(value, str) or value not in _DIRECTIONS:
            raise UnusableField("spec.policyTypes", value, "must be Ingress or Egress")
    return tuple(dict.fromkeys(_DIRECTIONS[value] for value in types))


def _parse_rules(value: Any, direction: Direction) -> tuple[Rule, ...]:
    peers_key = "from" if direction == "ingress" else "to"
    rules = []
    for number, item in enumerate(sequence_of(value, f"spec.{direction}")):
        key = f"spec.{direction}[{number}]"
        found = mapping_of(item, key, {peers_key, "ports"})
        peers = sequence_of(found.get(peers_key), f"{key}.{peers_key}")
        ports = sequence_of(found.get("ports"), f"{key}.ports")
        rules.append(
            Rule(
                tuple(_parse_peer(p, f"{key}.{peers_key}[{n}]") for n, p in enumerate(peers)),
                tuple(_parse_ports(p, f"{key}.ports[{n}]") for n, p in enumerate(ports)),
            )
        )
    return tuple(rules)


def _parse_peer(value: Any, key: str) -> Peer:
    found = mapping_of(value, key, {"ipBlock", "podSelector", "namespaceSelector"})
    if found.get("ipBlock") is not None:
        if len([each for each in found.values() if each is not None]) > 1:
            raise UnusableField(key, sorted(found), "must have ipBlock alone, or selectors")
        return _parse_block(found["ipBlock"], f"{key}.ipBlock")
    namespaces, pods = found.get("namespaceSelector"), found.get("podSelector")
    if namespaces is None and pods is None:
        raise UnusableField(key, value, "needs ipBlock, podSelector or namespaceSelector")
    return PodPeers(
        None if namespaces is None else parse_selector(namespaces, f"{key}.namespaceSelector"),
        parse_selector(pods, f"{key}.podSelector"),
    )


def _parse_block(value: Any, key: str) -> IpBlock:
    found = mapping_of(value, key, {"cidr", "except"})
    network = _network(found.get("cidr"), f"{key}.cidr")
    excepted = tuple(
        _network(item, f"{key}.except") for item in sequence_of(found.get("except"), key)
    )
    for inner in excepted:
        if inner.version != network.version:
            raise UnusableField(f"{key}.except", str(inner), f"is of another family than {network}")
    return IpBlock(network, excepted)


def _parse_ports(value: Any, key: str) -> Ports:
    found = mapping_of(value, key, {"protocol", "port", "endPort"})
    name = found.get("protocol") or "TCP"
    protocol = _NUMBERS.get(name) if isinstance(name, str) else None
    if protocol is None:
        raise UnusableField(f"{key}.protocol", name, "must be TCP, UDP or SCTP")
    port, last = found.get("port"), found.get("endPort")
    if port is None:
        if last is not None:
            raise UnusableField(f"{key}.endPort", last, "needs a port")
        return Ports(protocol)
    if isinstance(port, str):
        if last is not None:
            raise UnusableField(f"{key}.endPort", last, "needs a port that is a number")
        if port.isdecimal():
            raise UnusableField(f"{key}.port", port, "is a number, which takes no quotes")
        return Ports(protocol, name=text_of(port, f"{key}.port"))
    first = _number(port, f"{key}.port")
    end = first if last is None else _number(last, f"{key}.endPort")
    if end < first:
        raise UnusableField(f"{key}.endPort", end, f"is less than the port {first}")
    return Ports(protocol, first, end)


def _number(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= PORT_MAX:
        raise UnusableField(key, value, f"must be a port from 1 to {PORT_MAX}")
    return value


def _address(value: Any, key: str) -> IPAddress:
    text = text_of(value, key)
    try:
        address = ip_address(text)
    except ValueError as error:
        raise UnusableField(key, value, "must be an address") from error
    if "%" in text:  # a zone is any text, which nft would read
        raise UnusableField(key, value, "must be an address without zone")
    return address


def _network(value: Any, key: str) -> IPNetwork:
    try:
        return ip_network(text_of(value, key), strict=False)
    except ValueError as error:
        raise UnusableField(key, value, "must be a prefix") from error
