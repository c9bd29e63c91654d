"""NetworkPolicies, namespaces and pods, as far as policy needs them.

The objects are those of networking.k8s.io/v1 and core/v1. A policy with a part that cannot be
honoured lets nothing through to the pods that it selects, in the directions that it limits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from daemon.policy.fields import UnusableField, mapping_of, sequence_of, text_of
from daemon.policy.selectors import Labels, Selector, parse_labels, parse_selector
from kernel.model import IPAddress, IPNetwork
from kernel.nftables.policy_rules import PROTOCOLS, Direction

MONITOR = "podwire.dev/policy-mode"
"""Annotation of a policy or a namespace; `monitor`: nothing is dropped, all is reported."""
NAME_LABEL = "kubernetes.io/metadata.name"
"""Label that every namespace has, with its name."""
PORT_MAX = 65535
_PORTS_MAX = 20_000
_NUMBERS = {name.upper(): number for number, name in PROTOCOLS.items()}
_DIRECTIONS: Mapping[str, Direction] = {"Ingress": "ingress", "Egress": "egress"}
_ENDED = ("Succeeded", "Failed")
_ALL = Selector()

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class IpBlock:
    """Addresses of a prefix, but for some (ipBlock)."""

    network: IPNetwork
    excepted: tuple[IPNetwork, ...] = ()

    def __str__(self) -> str:
        but = f" except {', '.join(map(str, self.excepted))}" if self.excepted else ""
        return f"{self.network}{but}"


@dataclass(frozen=True, slots=True)
class PodPeers:
    """Pods by their labels, in namespaces by theirs. namespaces: None for the policy's own."""

    namespaces: Selector | None = None
    pods: Selector = _ALL

    def __str__(self) -> str:
        where = "" if self.namespaces is None else f" of namespaces {self.namespaces}"
        return f"pods {self.pods}{where}"


EVERYBODY = PodPeers(namespaces=_ALL)
"""All pods of the cluster."""
Peer = IpBlock | PodPeers


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a protocol, by its number. name: of the pod's container port, where it is named."""

    protocol: int
    first: int = 0
    last: int = PORT_MAX
    name: str = ""

    def __str__(self) -> str:
        protocol = PROTOCOLS[self.protocol]
        if self.name:
            return f"{protocol}/{self.name}"
        if (self.first, self.last) == (0, PORT_MAX):
            return protocol
        return f"{protocol}/{self.first}" + f"-{self.last}" * (self.last > self.first)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is let through: these peers at these ports. Empty: any."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy. rules: by direction that it limits; other directions it does not concern.

    monitors: it drops nothing, and reports what it would. fault: why it lets nothing through.
    """

    namespace: str
    name: str
    pods: Selector = _ALL
    rules: Mapping[Direction, tuple[Rule, ...]] = field(default_factory=dict)
    monitors: bool = False
    fault: str = ""
    spec: str = "{}"
    """As the API has it, in JSON, which takes a tenth of the memory of what it describes."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A namespace. monitors: its policies drop nothing, and report what they would."""

    name: str
    labels: Labels = field(default_factory=dict)
    monitors: bool = False


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod with addresses of its own.

    ports: numbers by protocol and name; one without a name has its number for it, which no name is.
    """

    namespace: str
    name: str
    labels: Labels = field(default_factory=dict)
    addresses: tuple[IPAddress, ...] = ()
    ports: Mapping[tuple[int, str], int] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the cluster."""

    policies: Mapping[Key, Policy] = field(default_factory=dict)
    namespaces: Mapping[str, NamespaceFacts] = field(default_factory=dict)
    pods: Mapping[Key, PodFacts] = field(default_factory=dict)

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels; its name is one of them, whatever else is known."""
        known = self.namespaces.get(namespace)
        return {NAME_LABEL: namespace, **(known.labels if known else {})}

    def monitors(self, policy: Policy) -> bool:
        """Whether a policy only reports."""
        known = self.namespaces.get(policy.namespace)
        return policy.monitors or bool(known and known.monitors)


# -- objects


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
    annotations = mapping_of(metadata.get("annotations"), "metadata.annotations")
    return annotations.get(MONITOR) == "monitor"


def parse_policy(thing: Any) -> Policy:
    """A NetworkPolicy. Raises UnusableField where it has no name."""
    policy = Policy(*key_of(thing))
    directions: tuple[Direction, ...] = ("ingress", "egress")
    pods = _ALL
    try:
        metadata = mapping_of(thing.get("metadata"), "metadata")
        policy = replace(policy, monitors=_monitors(metadata))
        known = {"podSelector", "policyTypes", "ingress", "egress"}
        spec = mapping_of(thing.get("spec"), "spec", known)
        # Until the selector is read the policy is taken to select all pods of its namespace.
        pods = parse_selector(spec.get("podSelector"), "spec.podSelector")
        policy = replace(policy, spec=_json_of(spec))
        directions = _parse_types(spec)
        rules = {d: _parse_rules(spec.get(d), d) for d in directions}
        _check_size(rules)
    except (UnusableField, AttributeError) as error:
        closed: dict[Direction, tuple[Rule, ...]] = dict.fromkeys(directions, ())
        return replace(policy, pods=pods, rules=closed, fault=str(error))
    return replace(policy, pods=pods, rules=rules)


def _json_of(spec: Mapping[str, Any]) -> str:
    try:
        return json.dumps(spec)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableField("spec", str(error), "must be what JSON can hold") from error


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
