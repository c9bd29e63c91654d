"""The record of an attachment in the store: enough to remove it with nothing else at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from ipaddress import ip_address, ip_interface, ip_network
from operator import attrgetter
from typing import Any

from kernel.model import Address, Bridge, Element, Link, Neighbour, Plan, Port, Route, Space, Sysctl

_SCHEMA = 1
# What a text raises that is no record, or none of this version.
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True)
class Record:
    """An attachment as it was made. ipam: the delegated plugin's name, empty for podwire's own.

    complete is False for one that was rebuilt from the kernel after the store was lost.
    foreign: where another plugin made the attachment and podwire only added to it, the node's link
    that leads to the pod.
    """

    plan: Plan
    netns: str = ""
    pod: str = ""
    ipam: str = ""
    aliases: tuple[str, ...] = ()
    dns: Mapping[str, Any] | None = None
    complete: bool = True
    foreign: str = ""


def dump_record(record: Record) -> str:
    """A record as JSON text; members that have their default value are left out.

    So another default is another schema.
    """
    return _encoder.encode({"schema": _SCHEMA, **_members(record)})


_encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def _members(noun: object) -> dict[str, object]:
    members, read = _READERS[type(noun)]
    return {
        name: value if type(value) in _PLAIN else _plain(value)
        for (name, default), value in zip(members, read(noun), strict=True)
        if value is not default and (default is None or value != default)
    }


_PLAIN = frozenset({str, int, bool, type(None), dict})


def _plain(value: object) -> object:
    """As JSON has it: nouns of ours as objects, bytes as hex, addresses as text."""
    if type(value) in _READERS:
        return _members(value)
    if isinstance(value, tuple):
        return [each if type(each) in _PLAIN else _plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else str(value)


_Reader = tuple[tuple[tuple[str, object], ...], Callable[[object], tuple[object, ...]]]


def _reader(noun: type[Any]) -> _Reader:
    members = tuple((field.name, _default(field)) for field in fields(noun))
    return members, attrgetter(*(name for name, _default in members))


def _default(field: Field[Any]) -> object:
    # None for what has none: no such member is ever None.
    return None if field.default is MISSING else field.default


_NOUNS = (Record, Plan, Space, Link, Port, Address, Route, Sysctl, Neighbour, Bridge, Element)
# Every ADD writes a record: what a noun consists of is read once.
_READERS: dict[type[object], _Reader] = {noun: _reader(noun) for noun in _NOUNS}


@dataclass(frozen=True, slots=True)
class CleanupRecord:
    """What the removal of an attachment needs of its record.

    host: the node-side link's name. mac: that of the pod's link, empty where it is not known.
    foreign: as in `Record`.
    """

    host: str
    mac: str = ""
    elements: tuple[Element, ...] = ()
    ipam: str = ""
    complete: bool = True
    foreign: str = ""


def cleanup_record_of(record: Record) -> CleanupRecord:
    """What removal needs of a record."""
    plan = record.plan
    host, pod = plan.node.links[0], plan.pod.links[0]
    rest = record.ipam, record.complete, record.foreign
    return CleanupRecord(host.name, pod.mac or "", plan.elements, *rest)


def load_cleanup_record(text: str) -> CleanupRecord:
    """What removal needs of a record in JSON text, at a fraction of the cost. Raises DAMAGE."""
    raw = _decode(text)
    plan = raw["plan"]
    elements = _each(_element, plan.get("elements", ()))
    host, pod = plan["node"]["links"][0], plan["pod"]["links"][0]
    rest = raw.get("ipam", ""), raw.get("complete", True), raw.get("foreign", "")
    return CleanupRecord(host["name"], pod.get("mac", ""), elements, *rest)


def _decode(text: str) -> dict[str, Any]:
    raw = json.loads(text)
    if not isinstance(raw, dict) or raw.pop("schema", None) != _SCHEMA:
        raise ValueError("the attachment's record was written by another version of podwire")
    return raw


def load_record(text: str) -> Record:
    """A record from JSON text. Raises DAMAGE where it is none that this version knows."""
    raw = _decode(text)
    return Record(**{**raw, "plan": _plan(raw["plan"]), "aliases": tuple(raw.get("aliases", ()))})


def _plan(raw: Any) -> Plan:
    return Plan(
        node=_space(raw["node"]),
        pod=_space(raw["pod"]),
        bridge=_bridge(raw["bridge"]) if raw.get("bridge") else None,
        elements=_each(_element, raw.get("elements", ())),
        masquerade=_each(ip_network, raw.get("masquerade", ())),
    )


def _each(make: Callable[[Any], Any], values: Any) -> tuple[Any, ...]:
    return tuple(make(value) for value in values)


def _space(raw: Any) -> Space:
    return Space(
        links=_each(_link, raw.get("links", ())),
        addresses=_each(_address, raw.get("addresses", ())),
        routes=_each(_route, raw.get("routes", ())),
        sysctls=_sysctls(raw),
        neighbours=_each(_neighbour, raw.get("neighbours", ())),
    )


def _link(raw: Any) -> Link:
    return replace(Link(**raw), port=Port(**raw["port"]) if raw.get("port") else None)


def _address(raw: Any) -> Address:
    return Address(**{**raw, "address": ip_interface(raw["address"])})


def _route(raw: Any) -> Route:
    ends = {key: ip_address(raw[key]) for key in ("via", "src") if raw.get(key)}
    return Route(**{**raw, **ends, "dst": ip_network(raw["dst"])})


def _neighbour(raw: Any) -> Neighbour:
    return Neighbour(**{**raw, "address": ip_address(raw["address"])})


def _bridge(raw: Any) -> Bridge:
    gateways = _each(ip_interface, raw.get("gateways", ()))
    return Bridge(**{**raw, "gateways": gateways, "sysctls": _sysctls(raw)})


def _sysctls(raw: Any) -> tuple[Any, ...]:
    return _each(lambda setting: Sysctl(**setting), raw.get("sysctls", ()))


def _element(raw: Any) -> Element:
    end = raw.get("key_end")
    key, key_end = bytes.fromhex(raw["key"]), bytes.fromhex(end) if end else None
    data = bytes.fromhex(raw["data"]) if raw.get("data") else None
    return Element(raw["family"], raw["set_name"], key, key_end, data=data)
