"""What the store keeps of an attachment: enough to remove it with nothing else at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address, ip_interface, ip_network
from operator import attrgetter
from typing import Any

from kernel.model import Address, Bridge, Element, Link, Plan, Port, Route, Space, Sysctl

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Record:
    """An attachment as it was made. ipam: the delegated plugin's name, empty for podwire's own.

    complete is False for one that was rebuilt from the kernel after the store was lost.
    """

    plan: Plan
    netns: str = ""
    pod: str = ""
    ipam: str = ""
    aliases: tuple[str, ...] = ()
    dns: Mapping[str, Any] | None = None
    complete: bool = True


def dump_record(record: Record) -> str:
    """A record as JSON text."""
    members = {"schema": _SCHEMA, **_members(record)}
    return _encoder.encode(members)


def _plain(value: object) -> object:
    """What JSON has no word for: our nouns as objects, bytes as hex, addresses as text."""
    if isinstance(value, bytes):
        return value.hex()
    return _members(value) if type(value) in _READERS else str(value)


_encoder = json.JSONEncoder(default=_plain, separators=(",", ":"))


def _members(noun: object) -> dict[str, object]:
    names, read = _READERS[type(noun)]
    return dict(zip(names, read(noun), strict=True))


def _reader(noun: type[Any]) -> tuple[tuple[str, ...], Callable[[object], tuple[object, ...]]]:
    names = tuple(field.name for field in fields(noun))
    return names, attrgetter(*names)


# Every ADD writes a record: what a noun consists of is looked up once.
_READERS: dict[type[object], tuple[tuple[str, ...], Callable[[object], tuple[object, ...]]]] = {
    noun: _reader(noun)
    for noun in (Record, Plan, Space, Link, Port, Address, Route, Sysctl, Bridge, Element)
}


@dataclass(frozen=True, slots=True)
class Remains:
    """What the removal of an attachment needs of its record."""

    host: str
    elements: tuple[Element, ...] = ()
    ipam: str = ""
    complete: bool = True


def remains_of(record: Record) -> Remains:
    """What removal needs of a record."""
    plan = record.plan
    return Remains(plan.node.links[0].name, plan.elements, record.ipam, record.complete)


def load_remains(text: str) -> Remains:
    """What removal needs of a record in JSON text, at a fraction of its price. Raises ValueError.

    Where the text is damaged elsewhere also TypeError, KeyError or IndexError.
    """
    raw = _decode(text)
    plan = raw["plan"]
    elements = _each(_element, plan["elements"])
    return Remains(plan["node"]["links"][0]["name"], elements, raw["ipam"], raw["complete"])


def _decode(text: str) -> dict[str, Any]:
    raw = json.loads(text)
    if not isinstance(raw, dict) or raw.pop("schema", None) != _SCHEMA:
        raise ValueError("the attachment's record was written by another version of podwire")
    return raw


def load_record(text: str) -> Record:
    """A record from JSON text. Raises ValueError where it is none that this version knows."""
    raw = _decode(text)
    return Record(**{**raw, "plan": _plan(raw["plan"]), "aliases": tuple(raw["aliases"])})


def _plan(raw: Any) -> Plan:
    return Plan(
        node=_space(raw["node"]),
        pod=_space(raw["pod"]),
        bridge=_bridge(raw["bridge"]) if raw["bridge"] else None,
        elements=_each(_element, raw["elements"]),
        masquerade=_each(ip_network, raw["masquerade"]),
    )


def _each(make: Callable[[Any], Any], values: Any) -> tuple[Any, ...]:
    return tuple(make(value) for value in values)


def _space(raw: Any) -> Space:
    return Space(
        links=_each(_link, raw["links"]),
        addresses=_each(_address, raw["addresses"]),
        routes=_each(_route, raw["routes"]),
        sysctls=_each(lambda s: Sysctl(**s), raw["sysctls"]),
    )


def _link(raw: Any) -> Link:
    return replace(Link(**raw), port=Port(**raw["port"]) if raw["port"] else None)


def _address(raw: Any) -> Address:
    return Address(**{**raw, "address": ip_interface(raw["address"])})


def _route(raw: Any) -> Route:
    ends = {key: ip_address(raw[key]) if raw[key] else None for key in ("via", "src")}
    return Route(**{**raw, **ends, "dst": ip_network(raw["dst"])})


def _bridge(raw: Any) -> Bridge:
    return Bridge(**{**raw, "gateways": _each(ip_interface, raw["gateways"])})


def _element(raw: Any) -> Element:
    end = raw["key_end"]
    key, key_end = bytes.fromhex(raw["key"]), bytes.fromhex(end) if end else None
    return Element(raw["family"], raw["set_name"], key, key_end)
