"""podwire's keys in etcd, what their values look like, and transactions on them. Pure.

    PREFIX/v1/nodes/NAME                        a node's record, on that node's lease
    PREFIX/v1/subnets/ipv4/10.244.3.0-24        the name of the node that holds the subnet, likewise
    PREFIX/v1/subnets/ipv6/fd00:10:244:3::-64
    PREFIX/v1/lengths/ipv4                      the prefix length of all subnets of that family

A subnet has one spelling only: a key that is spelt otherwise is not podwire's, and is left alone.
Requests and answers are in the JSON of etcd's gateway, which leaves out what is 0 or empty.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from daemon.log import shorten
from daemon.model import Node, parse_node_address, parse_node_name, parse_pod_cidr
from kernel.model import IPNetwork

T = TypeVar("T")
Json = Mapping[str, Any]

FAMILIES = {4: "ipv4", 6: "ipv6"}
RECORD_MAX = 4096
"""Bytes of a node's record: far more than any node writes."""
_VERSIONS = {name: version for version, name in FAMILIES.items()}
_KEY_MAX = 1024
_NODE_SUBNETS_MAX = 16
_ADDRESSES_MAX = 2


class Malformed(ValueError):
    """An answer that no etcd gives: another service listens there."""


# -- keys


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The key of a node's record."""

    name: str


@dataclass(frozen=True, slots=True)
class SubnetKey:
    """The key of a subnet, which exists as long as a node holds it."""

    subnet: IPNetwork


@dataclass(frozen=True, slots=True)
class LengthKey:
    """The key of the prefix length that all nodes agree on."""

    version: int


Place = NodeKey | SubnetKey | LengthKey


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster; prefix: of all keys, without a / at its end."""

    prefix: str = "/podwire"

    @property
    def root(self) -> bytes:
        """What all keys of this layout begin with."""
        return f"{self.prefix}/v1/".encode()

    @property
    def end(self) -> bytes:
        """The first key behind them, as etcd takes the end of a range (rpc.proto, range_end)."""
        return self.root[:-1] + bytes([self.root[-1] + 1])

    def write(self, place: Place) -> bytes:
        """The key of a place."""
        match place:
            case NodeKey(name):
                tail = f"nodes/{name}"
            case SubnetKey(subnet):
                text = f"{subnet.network_address}-{subnet.prefixlen}"
                tail = f"subnets/{FAMILIES[subnet.version]}/{text}"
            case LengthKey(version):
                tail = f"lengths/{FAMILIES[version]}"
        return self.root + tail.encode()

    def read(self, key: bytes) -> Place:
        """The place of a key. Raises ValueError where podwire would not have written it."""
        if not key.startswith(self.root) or len(key) > _KEY_MAX:
            raise ValueError(
                f"must begin with {self.prefix}/v1/, and have at most {_KEY_MAX} bytes"
            )
        try:
            kind, _, rest = key.removeprefix(self.root).decode("ascii").partition("/")
        except UnicodeDecodeError as error:
            raise ValueError("must be ASCII") from error
        place = _read_place(kind, rest)
        if self.write(place) != key:
            raise ValueError(f"must be written {self.write(place).decode()}")
        return place


def _read_place(kind: str, rest: str) -> Place:
    match kind:
        case "nodes":
            return NodeKey(parse_node_name(rest))
        case "subnets":
            _, _, text = rest.partition("/")
            return SubnetKey(parse_pod_cidr(text.replace("-", "/", 1)))
        case "lengths" if rest in _VERSIONS:
            return LengthKey(_VERSIONS[rest])
    raise ValueError("is none of nodes/NAME, subnets/FAMILY/SUBNET, lengths/FAMILY")


# -- values


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key with its value, as etcd has it (kv.proto, KeyValue).

    created, modified: revisions; a key that was deleted and made again has a new `created`.
    lease: 0 for a key that stays until it is deleted.
    """

    key: bytes
    value: bytes
    created: int = 0
    modified: int = 0
    lease: int = 0


def parse_key_value(entry: Any) -> KeyValue:
    """An entry of an answer. Raises Malformed."""
    try:
        key, value = (base64.b64decode(entry.get(k, ""), validate=True) for k in ("key", "value"))
        numbers = (int(entry.get(k, 0)) for k in ("create_revision", "mod_revision", "lease"))
        return KeyValue(key, value, *numbers)
    except (AttributeError, TypeError, binascii.Error, ValueError) as error:
        raise Malformed(f"a key that cannot be read: {shorten(entry)}") from error


def encode_record(node: Node, machine: str = "") -> bytes:
    """A node's record. machine: as in `LeaseFile`; an older daemon left it out."""
    listed = {"addresses": node.addresses, "podCIDRs": node.pod_cidrs}
    body: dict[str, Any] = {key: list(map(str, values)) for key, values in listed.items()}
    if machine:
        body["machine"] = machine
    return json.dumps(body, separators=(",", ":")).encode()


def parse_machine(value: bytes) -> str:
    """Which machine wrote a record that `parse_record` takes; "" where it is left out."""
    machine = json.loads(value).get("machine", "")
    return machine if isinstance(machine, str) else ""


def parse_record(name: str, value: bytes) -> Node:
    """A node by its record. Raises ValueError saying what is wrong with it."""
    if len(value) > RECORD_MAX:
        raise ValueError(f"has more than {RECORD_MAX} bytes")
    try:
        body = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {shorten(value)}") from error
    if not isinstance(body, dict):
        raise ValueError(f"is no JSON object: {shorten(value)}")
    addresses = _read_list(body, "addresses", parse_node_address, _ADDRESSES_MAX)
    subnets = _read_list(body, "podCIDRs", parse_pod_cidr, _NODE_SUBNETS_MAX)
    if not addresses:
        raise ValueError("needs an address in addresses")
    if len({a.version for a in addresses}) < len(addresses):
        raise ValueError("must have one address of each family in addresses")
    return Node(name, addresses, subnets)


def _read_list(
    body: Mapping[str, Any], key: str, parse: Callable[[str], T], most: int
) -> tuple[T, ...]:
    values = body.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"needs a list of texts in {key}")
    if len(values) > most:
        raise ValueError(f"has more than {most} in {key}")
    read = []
    for value in values:
        try:
            read.append(parse(value))
        except ValueError as error:
            raise ValueError(f"{key} has {shorten(value)}: {error}") from error
    return tuple(dict.fromkeys(read))


def encode_holder(name: str) -> bytes:
    """The value of a subnet's key."""
    return name.encode()


def parse_holder(value: bytes) -> str:
    """The name of the node that holds a subnet. Raises ValueError."""
    try:
        return parse_node_name(value[:RECORD_MAX].decode())
    except ValueError as error:
        raise ValueError(f"is no name of a node: {shorten(value)}") from error


def encode_length(length: int) -> bytes:
    """The value of a prefix length's key."""
    return str(length).encode()


def holders_text(holders: Mapping[IPNetwork, str], most: int = 16) -> str:
    """Subnets with their holders; of many the first ones and the number of the others."""
    listed = sorted(holders.items(), key=lambda item: (item[0].version, item[0]))
    listing = [f"{subnet} {name}" for subnet, name in listed[:most]]
    more = len(listed) - most
    return ", ".join(listing) + (f" and {more} more" if more > 0 else "")


# -- transactions and answers


def encode(data: bytes) -> str:
    """Bytes as the gateway takes them."""
    return base64.b64encode(data).decode()


@dataclass(slots=True)
class Transaction:
    """Operations that happen all together, if all conditions hold (rpc.proto, TxnRequest)."""

    conditions: list[Json] = field(default_factory=list)
    operations: list[Json] = field(default_factory=list)

    def expect_absent(self, key: bytes) -> None:
        """The key does not exist."""
        self._expect(key, target="CREATE", create_revision="0")

    def expect_unchanged(self, key: bytes, modified: int) -> None:
        """The key was not written since that revision."""
        self._expect(key, target="MOD", mod_revision=str(modified))

    def expect_value(self, key: bytes, value: bytes) -> None:
        """The key has that value."""
        self._expect(key, target="VALUE", value=encode(value))

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """Write a key; lease: the one that it ends with."""
        request = {"key": encode(key), "value": encode(value), "lease": str(lease)}
        self.operations.append({"request_put": request})

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self.operations.append({"request_delete_range": {"key": encode(key)}})

    def body(self) -> dict[str, Any]:
        """The request."""
        return {"compare": self.conditions, "success": self.operations, "failure": []}

    def _expect(self, key: bytes, **what: str) -> None:
        self.conditions.append({"key": encode(key), "result": "EQUAL", **what})


def read_keys(keys: Iterable[bytes]) -> dict[str, Any]:
    """The request for some keys, all as of one revision."""
    reads = [{"request_range": {"key": encode(key)}} for key in keys]
    return {"compare": [], "success": reads, "failure": []}


def pairs_of(answer: Json) -> list[KeyValue]:
    """The pairs in the answer to `read_keys`. Raises Malformed."""
    try:
        ranges = [r["response_range"] for r in answer.get("responses", ())]
        return [parse_key_value(entry) for r in ranges for entry in r.get("kvs", ())]
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed("an answer that cannot be read") from error


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an answer. cluster: the ID of its etcd. revision: of its newest change."""

    cluster: str
    revision: int

    def follows(self, earlier: Header) -> bool:
        """Whether it is of the same history, and not from before the other one."""
        return self.cluster == earlier.cluster and self.revision >= earlier.revision


def header_of(answer: Json) -> Header:
    """The header of an answer. Raises Malformed."""
    try:
        header = answer["header"]
        return Header(str(int(header["cluster_id"])), int(header.get("revision", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("an answer without a header") from error
