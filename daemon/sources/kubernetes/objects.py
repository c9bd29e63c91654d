"""Objects of the API: this node's Node as it is read, NodeNetworks as they are read and written.

Whatever an object holds, reading it gives a value or an Unusable; nobody's word is taken for more
than its type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from daemon.model import (
    Node,
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
_TEXT_MAX = 80
_UID_MAX = 128
_INTERNAL = "InternalIP"


class Unusable(Exception):
    """An object, or something in one, that podwire does not use; the message says why."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a NodeNetwork says. left_out: what of it is not used, in words."""

    node: Node
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """What a Node says, which only the cluster's control plane and its kubelet write.

    created: its creationTimestamp as it stands.
    """

    name: str
    uid: str
    addresses: tuple[IPAddress, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    created: str = ""
    left_out: tuple[str, ...] = field(default=())

    @property
    def node(self) -> Node:
        """The node as it is routed to."""
        return Node(self.name, self.addresses, self.pod_cidrs)

    def covers(self, node: Node) -> bool:
        """Whether all that is said of a node is so."""
        return set(node.addresses) <= set(self.addresses) and set(node.pod_cidrs) <= set(
            self.pod_cidrs
        )


def name_of(thing: object) -> str:
    """The name of an object. Raises Unusable."""
    name = _mapping(thing, "metadata").get("name")
    if not isinstance(name, str):
        raise Unusable("has no name")
    try:
        return parse_node_name(name)
    except ValueError as error:
        raise Unusable(f"its name {show(name)} {error}") from error


def parse_claim(thing: object, ranges: Iterable[IPNetwork]) -> Claim:
    """A NodeNetwork, as it came from JSON. Raises Unusable."""
    name, spec = name_of(thing), _mapping(thing, "spec")
    addresses = [
        _parse(parse_node_address, text, "its address")
        for text in _texts(spec, "addresses", ADDRESSES_MAX)
    ]
    if len({address.version for address in addresses}) < len(addresses):
        raise Unusable("has two addresses of one family")
    if not addresses:
        raise Unusable("has no address")
    cidrs, left_out = _read_prefixes(_texts(spec, "podCIDRs", PREFIXES_MAX), ranges)
    return Claim(Node(name, tuple(addresses), cidrs), left_out)


def parse_authority(thing: object, ranges: Iterable[IPNetwork]) -> Authority:
    """A Node, as it came from JSON. Raises Unusable."""
    name, metadata, spec = name_of(thing), _mapping(thing, "metadata"), _mapping(thing, "spec")
    uid, created = metadata.get("uid"), metadata.get("creationTimestamp")
    if not isinstance(uid, str) or not uid.isprintable() or not 0 < len(uid) <= _UID_MAX:
        raise Unusable("has no uid")
    texts = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
    texts = [text for text in texts if text != ""] if isinstance(texts, list) else texts
    cidrs, left_out = _read_prefixes(_texts({"podCIDRs": texts}, "podCIDRs", PREFIXES_MAX), ranges)
    return Authority(
        name,
        uid,
        tuple(_read_internal(_mapping(thing, "status"))),
        cidrs,
        created if isinstance(created, str) else "",
        left_out,
    )


def _read_internal(status: Mapping[str, Any]) -> Iterable[IPAddress]:
    """The first internal address of each family (core/v1, NodeAddress)."""
    entries = status.get("addresses") or []
    found: dict[int, IPAddress] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("type") != _INTERNAL:
            continue
        try:
            address = _parse(parse_node_address, entry.get("address"), "its address")
        except Unusable:
            continue  # a node may have addresses that are no use to others
        found.setdefault(address.version, address)
    return found.values()


def _read_prefixes(
    texts: Iterable[object], ranges: Iterable[IPNetwork]
) -> tuple[tuple[IPNetwork, ...], tuple[str, ...]]:
    """Those that can be used, and why the others cannot."""
    taken: list[IPNetwork] = []
    left_out: list[str] = []
    for text in texts:
        try:
            taken.append(_read_prefix(text, ranges, taken))
        except Unusable as error:
            left_out.append(str(error))
    return tuple(taken), tuple(left_out)


def _read_prefix(
    text: object, ranges: Iterable[IPNetwork], taken: Iterable[IPNetwork]
) -> IPNetwork:
    prefix = _parse(parse_pod_cidr, text, "its pod CIDR")
    if not any(_is_within(prefix, whole) for whole in ranges):
        raise Unusable(f"its pod CIDR {prefix} is outside of clusterCIDRs")
    for other in taken:
        if overlap(other, prefix):
            raise Unusable(f"its pod CIDR {prefix} overlaps its {other}")
    return prefix


def _is_within(prefix: IPNetwork, whole: IPNetwork) -> bool:
    return prefix.prefixlen >= whole.prefixlen and overlap(prefix, whole)


def _texts(spec: Mapping[str, Any], key: str, most: int) -> list[object]:
    values = spec.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise Unusable(f"its {key} are no list")
    if len(values) > most:
        raise Unusable(f"has {len(values)} {key}, more than {most}")
    return values


def _parse(parse: Callable[[str], T], text: object, what: str) -> T:
    if not isinstance(text, str):
        raise Unusable(f"{what} is no text")
    try:
        return parse(text)
    except ValueError as error:
        raise Unusable(f"{what} {show(text)} {error}") from error


def _mapping(thing: object, key: str) -> Mapping[str, Any]:
    value = thing.get(key) if isinstance(thing, dict) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unusable(f"its {key} is no mapping")
    return value


def show(text: str) -> str:
    """Somebody else's text, for a message."""
    return repr(text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 3]}...")


def render(node: Node, uid: str, namespace: str, succession: str = "") -> dict[str, Any]:
    """The NodeNetwork of a node, for server-side apply; it goes when the Node of that uid goes.

    succession: the token by which others know that its node wrote it; empty = none.
    """
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": uid}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": node.name, "namespace": namespace, "ownerReferences": [owner]},
        "spec": {
            "addresses": list(map(str, node.addresses)),
            "podCIDRs": list(map(str, node.pod_cidrs)),
            **({"succession": succession} if succession else {}),
        },
    }


def version_of(thing: object) -> tuple[str, int]:
    """An object's uid and generation, which only the API server writes; empty, 0 where it has none.

    The one is another with each object of the name, the other counts the changes of its spec.
    """
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    known = metadata if isinstance(metadata, dict) else {}
    uid, generation = known.get("uid"), known.get("generation")
    return (
        uid if isinstance(uid, str) else "",
        generation if isinstance(generation, int) else 0,
    )


def read_succession(thing: object) -> object:
    """The token in a NodeNetwork, as it came from JSON; None where there is none."""
    spec = thing.get("spec") if isinstance(thing, dict) else None
    return spec.get("succession") if isinstance(spec, dict) else None


def is_rendered(thing: object, wanted: Mapping[str, Any]) -> bool:
    """Whether an object of the API says what is wanted of it, and goes with that Node alone."""
    if not isinstance(thing, dict) or thing.get("spec") != wanted["spec"]:
        return False
    metadata = thing.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    nodes: list[object] = [
        owner
        for owner in (owners if isinstance(owners, list) else ())
        if isinstance(owner, dict) and owner.get("kind") == "Node"
    ]
    right: list[object] = wanted["metadata"]["ownerReferences"]
    return nodes == right
