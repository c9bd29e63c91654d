"""The record of an attachment in the store: enough to remove it with nothing else at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import reduce
from ipaddress import ip_address, ip_interface, ip_network
from operator import attrgetter
from typing import Any

from kernel.model import (
    Acceptance,
    Address,
    Bridge,
    Element,
    IPAddress,
    Link,
    Neighbour,
    Piece,
    Plan,
    Port,
    Redirect,
    Route,
    Space,
    Sysctl,
    TokenBucket,
)

_SCHEMA = 1
# What a text raises that is no record, or none of this version.
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True)
class Record:
    """An attachment as it was made. ipam: the delegated plugin's name, empty for podwire's own.

    complete is False for one that was rebuilt from the kernel after the store was lost.
    foreign: where another plugin made the attachment and podwire only added to it, the node's link
    that leads to the pod.
    pieces: what plugins of the chain, or features, add to the plan.
    """

    plan: Plan
    netns: str = ""
    pod: str = ""
    ipam: str = ""
    aliases: tuple[str, ...] = ()
    dns: Mapping[str, Any] | None = None
    complete: bool = True
    foreign: str = ""
    pieces: tuple[Piece, ...] = ()

    @property
    def whole(self) -> Plan:
        """The plan with all pieces."""
        return reduce(_with_piece, self.pieces, self.plan)

    def piece(self, name: str) -> Piece | None:
        """The piece of that plugin, if it has one."""
        return next((piece for piece in self.pieces if piece.name == name), None)

    def elements_beside(self, name: str) -> frozenset[Element]:
        """The elements that the attachment needs without that plugin's piece."""
        others = (e for piece in self.pieces if piece.name != name for e in piece.elements)
        return frozenset((*self.plan.elements, *others))


def bare_plan(host: Link, ifname: str) -> Plan:
    """The plan of an attachment of which no more is known than its links."""
    return Plan(Space(links=(host,)), Space(links=(Link(ifname),)))


def _with_piece(plan: Plan, piece: Piece) -> Plan:
    elements = tuple(dict.fromkeys((*plan.elements, *piece.elements)))
    node, pod = with_share(plan.node, piece.node), with_share(plan.pod, piece.pod)
    return replace(plan, node=node, pod=pod, elements=elements)


def with_share(space: Space, share: Space) -> Space:
    """Both spaces in one; of a link's traits, and of a setting, the share's holds."""
    links = {link.name: link for link in space.links}
    for link in share.links:
        links[link.name] = _with_traits(links[link.name], link) if link.name in links else link
    settings = {setting.path: setting for setting in (*space.sysctls, *share.sysctls)}
    lists = {
        name: (*getattr(space, name), *getattr(share, name))
        for name in Space.__slots__
        if name not in ("links", "sysctls")
    }
    return Space(links=tuple(links.values()), sysctls=tuple(settings.values()), **lists)


def _with_traits(link: Link, traits: Link) -> Link:
    return replace(
        link,
        mac=traits.mac or link.mac,
        mtu=traits.mtu or link.mtu,
        promisc=traits.promisc or link.promisc,
        allmulti=link.allmulti if traits.allmulti is None else traits.allmulti,
        queue_length=link.queue_length if traits.queue_length is None else traits.queue_length,
    )


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


_NOUNS = (
    *(Record, Plan, Piece, Space, Bridge),
    *(Link, Port, Address, Route, Sysctl, Neighbour, Element, TokenBucket, Redirect),
    Acceptance,
)
# Every ADD writes a record: what a noun consists of is read once.
_READERS: dict[type[object], _Reader] = {noun: _reader(noun) for noun in _NOUNS}


@dataclass(frozen=True, slots=True)
class CleanupRecord:
    """What the removal of an attachment needs of its record.

    host: the node-side link's name. mac: that of the pod's link, empty where it is not known.
    addresses: the pod's. elements: of the plan and of all pieces. foreign: as in `Record`.
    links: those of the node that the attachment has besides. acceptance: of its pieces.
    """

    host: str
    mac: str = ""
    addresses: tuple[IPAddress, ...] = ()
    elements: tuple[Element, ...] = ()
    ipam: str = ""
    complete: bool = True
    foreign: str = ""
    links: tuple[str, ...] = ()
    acceptance: Acceptance | None = None


def cleanup_record_of(record: Record) -> CleanupRecord:
    """What removal needs of a record."""
    plan = record.whole if record.pieces else record.plan
    (host, *more), pod = plan.node.links, plan.pod.links[0]
    addresses = tuple(a.address.ip for a in plan.pod.addresses)
    rest = record.ipam, record.complete, record.foreign
    links = tuple(link.name for link in more)
    acceptance = next(filter(None, (piece.acceptance for piece in record.pieces)), None)
    mac = pod.mac or ""
    return CleanupRecord(host.name, mac, addresses, plan.elements, *rest, links, acceptance)


def load_cleanup_record(text: str) -> CleanupRecord:
    """What removal needs of a record in JSON text, at a fraction of the cost. Raises DAMAGE."""
    raw = _decode(text)
    if "pieces" in raw:
        return cleanup_record_of(_record(raw))
    plan = raw["plan"]
    elements = _each(_element, plan.get("elements", ()))
    (host, *more), pod = plan["node"]["links"], plan["pod"]["links"][0]
    names = tuple(link["name"] for link in more)
    rest = raw.get("ipam", ""), raw.get("complete", True), raw.get("foreign", "")
    addresses = _each(_single, plan["pod"].get("addresses", ()))
    mac = pod.get("mac", "")
    return CleanupRecord(host["name"], mac, addresses, elements, *rest, names)


def _single(raw: Any) -> IPAddress:
    return ip_address(raw["address"].partition("/")[0])


def _decode(text: str) -> dict[str, Any]:
    raw = json.loads(text)
    if not isinstance(raw, dict) or raw.pop("schema", None) != _SCHEMA:
        raise ValueError("the attachment's record was written by another version of podwire")
    return raw


def load_record(text: str) -> Record:
    """A record from JSON text. Raises DAMAGE where it is none that this version knows."""
    return _record(_decode(text))


def read_record(text: str) -> Record | None:
    """The same; None for one that another version wrote."""
    try:
        return load_record(text)
    except DAMAGE:
        return None


def _record(raw: dict[str, Any]) -> Record:
    lists = {
        "aliases": tuple(raw.get("aliases", ())),
        "pieces": _each(_piece, raw.get("pieces", ())),
    }
    return Record(**{**raw, "plan": _plan(raw["plan"]), **lists})


def _piece(raw: Any) -> Piece:
    return Piece(
        name=raw["name"],
        node=_space(raw.get("node", {})),
        pod=_space(raw.get("pod", {})),
        elements=_each(_element, raw.get("elements", ())),
        original=_link(raw["original"]) if raw.get("original") else None,
        acceptance=_acceptance(raw["acceptance"]) if raw.get("acceptance") else None,
        waiting=_each(_element, raw.get("waiting", ())),
    )


def _acceptance(raw: Any) -> Acceptance:
    return Acceptance(**{**raw, "addresses": _each(ip_address, raw["addresses"])})


def _plan(raw: Any) -> Plan:
    return Plan(
        node=_space(raw["node"]),
        pod=_space(raw["pod"]),
        bridge=_bridge(raw["bridge"]) if raw.get("bridge") else None,
        elements=_each(_element, raw.get("elements", ())),
        masquerade=_each(ip_network, raw.get("masquerade", ())),
        waiting=_each(_element, raw.get("waiting", ())),
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
        buckets=_each(lambda bucket: TokenBucket(**bucket), raw.get("buckets", ())),
        redirects=_each(lambda redirect: Redirect(**redirect), raw.get("redirects", ())),
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
