"""What stands at podwire's keys: nodes' records as JSON, the names of holders, prefix lengths."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from daemon.model import Node, parse_node_address, parse_node_name, parse_pod_cidr
from kernel.model import IPNetwork

T = TypeVar("T")

RECORD_MAX = 4096
"""Bytes of a node's record: far more than what any node writes."""
_SUBNETS_MAX = 16
_ADDRESSES_MAX = 2
_SHOWN = 80


class Malformed(ValueError):
    """An answer that no etcd gives: something else listens there."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key with its value, as etcd has it (kv.proto, KeyValue).

    created, modified: revisions; a key that was deleted and made again has a new `created`.
    lease: 0 for a key that stays until it is deleted.
    """

    key: bytes
    value: bytes
    created: int = 0
    modified: int = 0
    lease: int = 0


def parse_pair(entry: Any) -> Pair:
    """A pair of the JSON gateway, which leaves out what is 0 or empty. Raises Malformed."""
    try:
        key, value = (base64.b64decode(entry.get(k, ""), validate=True) for k in ("key", "value"))
        numbers = (int(entry.get(k, 0)) for k in ("create_revision", "mod_revision", "lease"))
        return Pair(key, value, *numbers)
    except (AttributeError, TypeError, binascii.Error, ValueError) as error:
        raise Malformed(f"a key that cannot be read: {shorten(entry)}") from error


def encode_record(node: Node, machine: str = "") -> bytes:
    """A node's record. machine: as in `Memory`; a record without it says nothing of that."""
    listed = {"addresses": node.addresses, "podCIDRs": node.pod_cidrs}
    body: dict[str, Any] = {key: list(map(str, values)) for key, values in listed.items()}
    if machine:
        body["machine"] = machine
    return json.dumps(body, separators=(",", ":")).encode()


def parse_machine(value: bytes) -> str:
    """Which machine wrote a record that `parse_record` takes; "" where it does not say."""
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
    subnets = _read_list(body, "podCIDRs", parse_pod_cidr, _SUBNETS_MAX)
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
    """Who holds what, by subnet; of many the first ones, and how many more."""
    listed = sorted(holders.items(), key=lambda item: (item[0].version, item[0]))
    words = [f"{subnet} {name}" for subnet, name in listed[:most]]
    more = len(listed) - most
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def shorten(value: object) -> str:
    """What somebody wrote, made harmless and short for a line of log."""
    text = ascii(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
