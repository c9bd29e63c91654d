"""Text for people: names, states and differences of nouns. Nothing decides on these texts."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, summarize_address_range

from kernel.diff import Change, Fault, Noun
from kernel.model import (
    TABLE_MAIN,
    Acceptance,
    Address,
    ChainRules,
    Element,
    FdbEntry,
    Link,
    Neighbour,
    Redirect,
    Route,
    Sysctl,
    TokenBucket,
)
from kernel.nftables.port_mappings import PROTOCOLS
from kernel.nftables.ruleset import set_of
from kernel.nftables.table import TABLE

# linux/rtnetlink.h, RTPROT_*, by iproute2's names.
_PROTOCOLS = {
    2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp",
    186: "bgp", 187: "isis", 188: "ospf", 192: "eigrp",
}  # fmt: skip
_LABELS = {
    "mac": "MAC", "mtu": "MTU", "vni": "VNI", "udp_checksum": "UDP checksums",
    "rate": "rate (bytes a second)", "buffer": "burst (ticks of 64 ns)", "limit": "limit (bytes)",
}  # fmt: skip
_ON_OFF = {True: "on", False: "off"}


_NAMES: Mapping[type[Noun], str] = {
    Link: "link {0.name}",
    Address: "address {0.address}",
    Route: "route {0.dst}",
    Neighbour: "neighbour {0.address}",
    FdbEntry: "fdb {0.mac}",
    Sysctl: "sysctl {0.path}",
    ChainRules: f"nft chain {{0.chain}} of table {{0.family}} {TABLE}",
    TokenBucket: "qdisc tbf of link {0.link}",
    Redirect: "redirection of what link {0.link} receives",
}


def name_of(noun: Noun) -> str:
    """The object: "route 10.244.7.0/24"."""
    if isinstance(noun, Acceptance):
        return f"acceptance of {', '.join(map(str, noun.addresses))} by the node's firewall"
    if isinstance(noun, Element):
        return f"element {_element(noun)} of nft table {noun.family} {TABLE}"
    return _NAMES[type(noun)].format(noun)


# Bytes in a key; a field of a concatenation is padded to 32 bits (linux/netfilter/nf_tables.h).
_FIELD_BYTES = {
    "ifname": 16, "ether_addr": 8, "ipv4_addr": 4, "ipv6_addr": 16,
    "inet_proto": 4, "inet_service": 4,
}  # fmt: skip


def _element(element: Element) -> str:
    """An element as `nft` shows it, after its set's name."""
    a_set = set_of(element)
    shown = f"{element.set_name} {_fields(a_set.fields, element.key, element.key_end)}"
    return f"{shown} : {_fields(a_set.data, element.data)}" if element.data else shown


def _fields(fields: tuple[str, ...], first: bytes, last: bytes | None = None) -> str:
    parts = []
    start = 0
    for field in fields:
        cut = slice(start, start + _FIELD_BYTES[field])
        parts.append(_field(field, first[cut], (last or first)[cut]))
        start = cut.stop
    return " . ".join(parts)


def _field(field: str, first: bytes, last: bytes) -> str:
    if field == "ifname":
        return first.rstrip(b"\0").decode(errors="replace")
    if field == "ether_addr":
        return first[:6].hex(":")
    if field == "inet_proto":
        return next((name for name, number in PROTOCOLS.items() if number == first[0]), "?")
    if field == "inet_service":
        return str(int.from_bytes(first[:2]))
    ends = ip_address(first), ip_address(last)
    if first == last:
        return str(ends[0])
    networks = list(summarize_address_range(*ends))
    return str(networks[0]) if len(networks) == 1 else f"{ends[0]}-{ends[1]}"


_STATES: Mapping[type[object], str] = {
    Address: "dev {0.link}",
    Neighbour: "lladdr {0.mac} dev {0.link}",
    FdbEntry: "dst {0.dst} dev {0.link} {0.more}",
    Redirect: "to {0.to}",
    Sysctl: "{0.value}",
}


def state_of(noun: Noun | None) -> str:
    """Its traits in iproute2's terms; empty for an object that is not there."""
    if isinstance(noun, Link):
        return _link(noun)
    if isinstance(noun, Route):
        return _route(noun)
    if isinstance(noun, TokenBucket):
        return f"rate {noun.rate * 8}bit limit {noun.limit}"
    return _STATES.get(type(noun), "").format(noun).rstrip()


def _link(link: Link) -> str:
    tunnel = link.vxlan
    parts = [link.kind]
    if tunnel:
        parts.append(f"id {tunnel.vni} port {tunnel.port} local {tunnel.local} dev {tunnel.uplink}")
    parts += [f"mac {link.mac}"] if link.mac else []
    parts += [f"mtu {link.mtu}"] if link.mtu else []
    return " ".join(parts)


def _route(route: Route) -> str:
    protocol = f"proto {_PROTOCOLS.get(route.protocol, route.protocol)}"
    if not route.link:
        return f"several next hops or none, {protocol}"
    parts = ["local"] if route.local else []
    parts += [f"via {route.via}"] if route.via else []
    parts.append(f"dev {route.link}")
    parts += ["onlink"] if route.onlink else []
    parts += [f"table {route.table}"] if route.table != TABLE_MAIN else []
    parts += [f"metric {route.priority}"] if route.priority else []
    return " ".join([*parts, protocol])


def describe(change: Change[Noun], where: str = "") -> str:
    """A difference in a sentence. where: what the namespace is called ("pod", "node")."""
    place = f" in the {where}" if where else ""
    noun = change.noun
    if isinstance(noun, ChainRules) and change.desired is not None:
        how = "are missing" if change.observed is None else "are not podwire's"
        return f"rules of nft table {noun.family} {TABLE} {how}"
    if isinstance(noun, Sysctl) and change.desired is not None:
        found = f"is {state_of(change.observed)}" if change.observed else "is missing"
        return f"{noun.path}{place} {found}, not {noun.value}"
    if change.desired is None:
        return f"{_subject(noun)} should not be{place or ' there'}"
    if change.observed is None:
        return _missing(noun, place)
    if isinstance(noun, Route) and isinstance(change.observed, Route):
        found, wanted = _path(change.observed, noun), _path(noun, noun)
        return f"{name_of(noun)}{place} goes {found}, not {wanted}"
    return f"{name_of(noun)}{place} {' and '.join(map(_predicate, change.faults))}"


def _subject(noun: Noun) -> str:
    if isinstance(noun, Route):
        return f"{name_of(noun)} {_path(noun, noun)}"
    return f"{name_of(noun)} {state_of(noun)}".rstrip()


def _missing(noun: Noun, place: str) -> str:
    if isinstance(noun, Link):
        return f"{name_of(noun)} is missing{place}"
    if isinstance(noun, Address):
        return f"{name_of(noun)} is missing on {noun.link}{place}"
    return f"{_subject(noun)} is missing{place}"


def _path(route: Route, desired: Route) -> str:
    """A route's next hop, with the numbers that the plan names."""
    numbers = (
        ("metric", route.priority, desired.priority),
        ("mtu", route.mtu, desired.mtu),
        ("advmss", route.advmss, desired.advmss),
    )
    more = "".join(f" {name} {value}" for name, value, wanted in numbers if wanted)
    via = f"via {route.via} " if route.via else ""
    return f"{via}dev {route.link}{more}"


def _predicate(fault: Fault) -> str:
    """ "is down", "has MTU 9000, not 1500"."""
    trait, wanted, found = fault.trait, fault.desired, fault.observed
    if trait == "kind":
        return f"is a {found or 'physical device'}, not a {wanted}"
    if trait == "up":
        return "is down"
    if trait == "arp":
        return "resolves no neighbours (NOARP)"
    if trait == "vxlan":
        return "is bound to no local address"
    if trait == "to":
        return f"goes to {found or 'a link that is gone'}, not {wanted}"
    if trait == "master" and not found:
        return f"is not a port of bridge {wanted}"
    if trait == "master" and not wanted:
        return f"has master {found}, and should have none"
    if isinstance(wanted, bool):
        return f"has {_LABELS.get(trait, trait)} {_ON_OFF[bool(found)]}, not {_ON_OFF[wanted]}"
    return f"has {_LABELS.get(trait, trait)} {found}, not {wanted}"
