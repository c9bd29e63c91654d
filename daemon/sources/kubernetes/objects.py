"""Objects of the API: Nodes as they are read, NodeNetworks as they are read and written.

Whatever an object contains, parsing it gives a value or raises UnusableObject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from daemon.log import shorten
from daemon.model import (
    Node,
    is_within,
    overlap,
    parse_node_address,
    parse_node_name,
    parse_pod_cidr,
)
from kernel.model import IPAddress, IPNetwork

T = TypeVar("T")

GROUP, VERSION, KIND, PLURAL = "podwire.dev", "v1", "NodeNetwork", "nodenetworks"
API_VERSION = f"{GROUP}/{VERSION}"
ADDRESSES_MAX = 2
"""One of each family."""
PREFIXES_MAX = 16
_UID_MAX = 128
_INTERNAL, _EXTERNAL = "InternalIP", "ExternalIP"


_POSITION = re.compile(r"[A-Za-z0-9._-]{1,64}")


class UnusableObject(Exception):
    """An object, or a part of one, that podwire does not use; the message says why."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a NodeNetwork claims for its node. left_out: why parts of it are not used."""

    node: Node
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What podwire uses of a Node, which only the control plane and the node's kubelet write.

    addresses: the first internal one of each family; all of them: internal; external: those of
    type ExternalIP, which are not used. left_out: why parts of it are not used. created: when, as
    the API server writes it, which sorts as text.
    """

    name: str
    uid: str
    addresses: tuple[IPAddress, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    left_out: tuple[str, ...] = ()
    internal: tuple[IPAddress, ...] = ()
    external: tuple[IPAddress, ...] = ()
    created: str = ""

    @property
    def node(self) -> Node:
        """The node as routing uses it."""
        return Node(self.name, self.addresses, self.pod_cidrs)

    @property
    def all_addresses(self) -> frozenset[IPAddress]:
        """The addresses that the Node has for the cluster."""
        return frozenset((*self.addresses, *self.internal))

    def covers(self, node: Node) -> bool:
        """Whether the Node has all addresses and pod CIDRs of a claim."""
        has_addresses = self.all_addresses.issuperset(node.addresses)
        return has_addresses and set(self.pod_cidrs).issuperset(node.pod_cidrs)


NODES = "/api/v1/nodes"
"""The path of all Nodes in the API."""


def objects_path(namespace: str) -> str:
    """The path of all NodeNetworks in the API."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"


def name_of(thing: object) -> str:
    """The name of an object. Raises UnusableObject."""
    name = _mapping(thing, "metadata").get("name")
    if not isinstance(name, str):
        raise UnusableObject("has no name")
    try:
        return parse_node_name(name)
    except ValueError as error:
        raise UnusableObject(f"its name {shorten(name)} {error}") from error


def parse_claim(thing: object, ranges: Iterable[IPNetwork]) -> Claim:
    """A NodeNetwork, as it came from JSON. Raises UnusableObject."""
    name, spec = name_of(thing), _mapping(thing, "spec")
    addresses = [
        _parse(parse_node_address, text, "its address")
        for text in _texts(spec, "addresses", ADDRESSES_MAX)
    ]
    if len({address.version for address in addresses}) < len(addresses):
        raise UnusableObject("has two addresses of one family")
    if not addresses:
        raise UnusableObject("has no address")
    cidrs, left_out = _read_prefixes(_texts(spec, "podCIDRs", PREFIXES_MAX), ranges)
    return Claim(Node(name, tuple(addresses), cidrs), left_out)


def parse_node_record(thing: object, ranges: Iterable[IPNetwork]) -> NodeRecord:
    """A Node, as it came from JSON. Raises UnusableObject."""
    name, spec = name_of(thing), _mapping(thing, "spec")
    uid, created = map(_mapping(thing, "metadata").get, ("uid", "creationTimestamp"))
    if not isinstance(uid, str) or not uid.isprintable() or not 0 < len(uid) <= _UID_MAX:
        raise UnusableObject("has no uid")
    texts = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
    texts = [text for text in texts if text != ""] if isinstance(texts, list) else texts
    cidrs, left_out = _read_prefixes(_texts({"podCIDRs": texts}, "podCIDRs", PREFIXES_MAX), ranges)
    internal, external = (
        tuple(_read_addresses(_mapping(thing, "status"), kind)) for kind in (_INTERNAL, _EXTERNAL)
    )
    # Of each family the first: dictionaries keep the last of a key.
    first = {address.version: address for address in reversed(internal)}
    addresses = tuple(address for address in internal if address in first.values())
    created = created if isinstance(created, str) else ""
    return NodeRecord(name, uid, addresses, cidrs, left_out, internal, external, created)


def _read_addresses(status: Mapping[str, Any], kind: str) -> Iterable[IPAddress]:
    """The addresses of a type, in their order (core/v1, NodeAddress)."""
    entries = status.get("addresses") or []
    found: dict[IPAddress, None] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("type") != kind:
            continue
        # A node may have addresses that are no use to others.
        with suppress(UnusableObject):
            found[_parse(parse_node_address, entry.get("address"), "its address")] = None
    return found


def _read_prefixes(
    texts: Iterable[object], ranges: Iterable[IPNetwork]
) -> tuple[tuple[IPNetwork, ...], tuple[str, ...]]:
    """The usable prefixes, and why the others are not."""
    taken: list[IPNetwork] = []
    left_out: list[str] = []
    for text in texts:
        try:
            taken.append(_read_prefix(text, ranges, taken))
        except UnusableObject as error:
            left_out.append(str(error))
    return tuple(taken), tuple(left_out)


def _read_prefix(
    text: object, ranges: Iterable[IPNetwork], taken: Iterable[IPNetwork]
) -> IPNetwork:
    prefix = _parse(parse_pod_cidr, text, "its pod CIDR")
    if not any(is_within(prefix, whole) for whole in ranges):
        raise UnusableObject(f"its pod CIDR {prefix} is outside of clusterCIDRs")
    for other in taken:
        if overlap(other, prefix):
            raise UnusableObject(f"its pod CIDR {prefix} overlaps its {other}")
    return prefix


def _texts(spec: Mapping[str, Any], key: str, most: int) -> list[object]:
    values = spec.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise UnusableObject(f"its {key} are no list")
    if len(values) > most:
        raise UnusableObject(f"has {len(values)} {key}, more than {most}")
    return values


def _parse(parse: Callable[[str], T], text: object, what: str) -> T:
    if not isinstance(text, str):
        raise UnusableObject(f"{what} is no text")
    try:
        return parse(text)
    except ValueError as error:
        raise UnusableObject(f"{what} {shorten(text)} {error}") from error


def _mapping(thing: object, key: str) -> Mapping[str, Any]:
    value = thing.get(key) if isinstance(thing, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnusableObject(f"its {key} is no mapping")
    return value


def metadata_of(thing: object) -> Mapping[str, Any]:
    """The metadata of an object or list; empty where it has none that is usable."""
    found = thing.get("metadata") if isinstance(thing, dict) else None
    return found if isinstance(found, dict) else {}


def find_position(thing: object) -> str:
    """The resourceVersion of an object or list, empty where it has none that is usable."""
    position = metadata_of(thing).get("resourceVersion")
    return position if isinstance(position, str) and _POSITION.fullmatch(position) else ""


def version_of(thing: object) -> tuple[str, int]:
    """An object's uid and generation, which only the API server writes; empty, 0 without them.

    Each object of the name has another uid; the generation counts changes of its spec.
    """
    metadata = metadata_of(thing)
    uid, generation = metadata.get("uid"), metadata.get("generation")
    return (
        uid if isinstance(uid, str) else "",
        generation if isinstance(generation, int) else 0,
    )


def render(node: Node, uid: str, namespace: str) -> dict[str, Any]:
    """The NodeNetwork of a node, for server-side apply.

    Its owner is the Node of that uid, so the garbage collector deletes it with the Node.
    """
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": uid}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": node.name, "namespace": namespace, "ownerReferences": [owner]},
        "spec": {
            "addresses": list(map(str, node.addresses)),
            "podCIDRs": list(map(str, node.pod_cidrs)),
        },
    }


def is_rendered(thing: object, desired: Mapping[str, Any]) -> bool:
    """Whether an object of the API has the desired spec, and that Node as its only Node owner."""
    if not isinstance(thing, dict) or thing.get("spec") != desired["spec"]:
        return False
    owners = metadata_of(thing).get("ownerReferences")
    nodes: list[object] = [
        owner
        for owner in (owners if isinstance(owners, list) else ())
        if isinstance(owner, dict) and owner.get("kind") == "Node"
    ]
    right: list[object] = desired["metadata"]["ownerReferences"]
    return nodes == right
