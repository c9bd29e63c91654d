"""Network policy in a table of its own: which connections of this node's pods are let through.

Packet path: forwarding, before the filters of others; only what the node forwards is filtered, so
its own traffic to its pods, and theirs to it, passes. Addresses are those after DNAT and before
SNAT. Packets of tracked connections are let through by one rule. The first packet of a connection
finds its pod by the node's end of the pod's pair: that name is derived from the attachment's key,
so no later pod has it, and rules left over concern nobody. Where policies are enforced a pair that
is not in `known` lets nothing through: a new pod is closed until the daemon has seen it.

Pods of a bridge are found by their addresses, which the source check holds them to: where frames
pass this hook (br_netfilter, net.bridge.bridge-nf-call-iptables), in and out are the bridge itself.
Neighbour discovery and MLD are among them, and what is sent to all ports is no packet to a pod.

A filter is a chain and the sets that it looks up; what it does not find there it drops. Filters are
shared by pods of equal policies. A script changes only what differs, in one transaction.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from kernel.conntrack import Connection
from kernel.errors import KernelError
from kernel.model import HOST_LINK_PREFIX, ChainRules, IPAddress
from kernel.netlink.socket import NETLINK_NETFILTER, open_netlink
from kernel.nftables.policy_rules import (
    DIRECTIONS,
    PROTOCOLS,
    Box,
    Direction,
    Ends,
    Filter,
    Place,
    PolicyRules,
    Span,
)
from kernel.nftables.set_messages import read_elements
from kernel.nftables.table import (
    Chain,
    Set,
    marked_rules,
    read_rules,
    run_nft,
    table_is_present,
)
from kernel.programs import require_program, run_program

TABLE = "podwire-policy"
LOG_GROUP = 8473
"""Of NFLOG: the first bytes of packets that were dropped, or would be."""
CUT_SECONDS = 3600
"""How long the addresses and ports of a connection that was cut are remembered."""
CUTS_MAX = 32767
"""Connections that are remembered."""
_LOG_RATE = "limit rate 50/second burst 100 packets"
_SNAPPED = 128  # bytes of a logged packet: its headers
_IP = {4: "ip", 6: "ip6"}
_PATH = f"inet {TABLE}"

# -- rendering


class _Kind(NamedTuple):
    """A set that a filter may have.

    lookup: the expression that is looked up in it; fields: as nft declares it; part: the filter's
    attribute whose members of an IP version are in it (0: all); write: a member as nft takes it.
    """

    lookup: str
    suffix: str
    fields: str
    part: str
    version: int
    write: Callable[[Any], str]

    def holds(self, member: Any) -> bool:
        """Whether a member of the part is in this set."""
        return not self.version or member.version == self.version


def _kinds(direction: Direction) -> Iterator[_Kind]:
    peer_field = "saddr" if direction == "ingress" else "daddr"
    ports = "meta l4proto . th dport"
    for v, ip in _IP.items():
        peer, address = f"{ip} {peer_field}", f"type ipv{v}_addr"
        interval = f"{address}; flags interval;"
        with_ports = f"{address} . inet_proto . inet_service; flags interval;"
        yield _Kind(peer, f"hosts{v}", f"{address};", "hosts", v, str)
        yield _Kind(peer, f"ranges{v}", interval, "ranges", v, _text)
        yield _Kind(f"{peer} . {ports}", f"ports{v}", with_ports, "boxes", v, _box)
    fields = "type inet_proto . inet_service; flags interval;"
    yield _Kind(ports, "ports", fields, "spans", 0, _span)


def _text(ends: Ends) -> str:
    first, last = _address(ends.version, ends.first), _address(ends.version, ends.last)
    return str(first) if first == last else f"{first}-{last}"


def _address(version: int, number: int) -> IPAddress:
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def _span(span: Span) -> str:
    ports = str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
    return f"{PROTOCOLS[span.protocol]} . {ports}"


def _box(box: Box) -> str:
    return f"{_text(box.ends)} . {_span(box.span)}"


_KINDS = {direction: tuple(_kinds(direction)) for direction in DIRECTIONS}


def chain_name(direction: Direction, name: str) -> str:
    """The chain's name; a filter's name may be any text."""
    return f"{direction}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _sets(found: Filter | None) -> tuple[_Kind, ...]:
    """The sets of a filter: those that have members."""
    if found is None:
        return ()
    return tuple(k for k in _KINDS[found.direction] if k.version in found.versions[k.part])


def _filter_chain(name: str, found: Filter, sets: Iterable[_Kind] | None = None) -> Chain:
    """A filter's chain, with its rules in order. sets: those that it has, where they are known."""
    chain = chain_name(found.direction, name)
    if found.everything:
        return Chain(chain, "", ("counter return",))
    lookups = (
        f"{kind.lookup} @{chain}-{kind.suffix} counter return"
        for kind in (_sets(found) if sets is None else sets)
    )
    action = "monitored" if found.monitors else "denied"
    prefix = f'"{action} {found.direction} "'
    log = f"{_LOG_RATE} log prefix {prefix} group {LOG_GROUP} snaplen {_SNAPPED}"
    last = "counter return" if found.monitors else "counter drop"
    return Chain(chain, "", (*lookups, log, last))


_CUT_FIELDS = {
    v: f"{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport" for v, ip in _IP.items()
}
# Each field of a key is padded to four bytes.
_CUT_KEYS = {v: struct.Struct(f"!{size}s{size}sB3xH2xH2x") for v, size in ((4, 4), (6, 16))}


def _base() -> Iterator[str]:
    """Maps, sets and the base chain, which are the same whatever the policies are."""
    yield f'table {_PATH} {{ comment "made by podwired, which rebuilds it when it is removed"; }}'
    for suffix, kind in _PLACES.items():
        for direction in DIRECTIONS:
            yield f"add map {_PATH} {direction}{suffix} {{ type {kind} : verdict; }}"
        yield f"add set {_PATH} known{suffix} {{ type {kind}; }}"
        yield f"add set {_PATH} itself{suffix} {{ type {kind} . {kind}; }}"
    yield f"add set {_PATH} bridges {{ type ifname; }}"
    size = 2 * (CUTS_MAX + 1)
    for v in _IP:
        address = f"ipv{v}_addr"
        fields = f"{address} . {address} . inet_proto . inet_service . inet_service"
        yield f"add set {_PATH} cut{v} {{ type {fields}; flags timeout; size {size}; }}"
    yield f"add chain {_PATH} {_UNKNOWN.name}"
    yield f"add chain {_PATH} {_FORWARD.name} {{ {_FORWARD.hook}; }}"
    yield from marked_rules(_PATH, _FORWARD)


_PLACES = {"": "ifname", "4": "ipv4_addr", "6": "ipv6_addr"}
"""What pods are found by: the end of the name of sets and maps, and the type of their members."""
_PODS = f'"{HOST_LINK_PREFIX}*"'
_OF_LINKS = (
    "{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, nd-redirect,"
    " mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }"
)
_UNKNOWN = Chain("unknown", "", ("counter drop",))
"""Where pods that are not known lead; without rules where they are not closed."""
_FORWARD = Chain(
    "forward",
    "type filter hook forward priority filter - 5",
    (
        "ct state established,related accept",
        "iifname . oifname @itself accept",
        *(f"{ip} saddr . {ip} daddr @itself{v} accept" for v, ip in _IP.items()),
        f"iifname {_PODS} iifname != @known jump {_UNKNOWN.name}",
        f"oifname {_PODS} oifname != @known jump {_UNKNOWN.name}",
        f"icmpv6 type {_OF_LINKS} accept",
        *(
            f"iifname @bridges {ip} saddr != @known{v} jump {_UNKNOWN.name}"
            for v, ip in _IP.items()
        ),
        *(
            f"oifname @bridges meta pkttype host {ip} daddr != @known{v} jump {_UNKNOWN.name}"
            for v, ip in _IP.items()
        ),
        *(
            f"meta l4proto tcp {fields} @cut{v} reject with tcp reset"
            for v, fields in _CUT_FIELDS.items()
        ),
        *(f"{fields} @cut{v} drop" for v, fields in _CUT_FIELDS.items()),
        "iifname vmap @egress",
        *(f"{ip} saddr vmap @egress{v}" for v, ip in _IP.items()),
        "oifname vmap @ingress",
        *(f"{ip} daddr vmap @ingress{v}" for v, ip in _IP.items()),
    ),
)


def render(rules: PolicyRules, cuts: Collection[Connection] = ()) -> str:
    """A script for `nft -f` that makes the whole table anew, whatever is there."""
    whole = "\n".join(_changes(PolicyRules(), rules))
    lines = [f"add table {_PATH}", f"delete table {_PATH}", *_base(), whole]
    lines += _cut_elements("add", cuts)
    return "\n".join([*lines, ""])


def render_changes(old: PolicyRules, new: PolicyRules) -> str:
    """A script that makes the table of `old` that of `new`; empty where they are equal."""
    return "".join(f"{line}\n" for line in _changes(old, new))


def render_cuts(gone: Collection[Connection], new: Collection[Connection]) -> str:
    """A script that forgets some connections as cut, and then remembers others."""
    # What the kernel has forgotten by itself is added once more: it deletes nothing else.
    changes = ("add", gone), ("delete", gone), ("add", new)
    return "".join(f"{line}\n" for verb, cuts in changes for line in _cut_elements(verb, cuts))


def _cut_elements(verb: str, cuts: Collection[Connection]) -> Iterator[str]:
    """Those of connections in both directions."""
    lasts = f" timeout {CUT_SECONDS}s" if verb == "add" else ""
    for v in _IP:
        members = {
            f"{c.source} . {c.destination} . {c.protocol} . {c.source_port} . {c.port}{lasts}"
            for each in cuts
            for c in (each, each.reverse)
            if c.source.version == v
        }
        yield from _elements(verb, f"cut{v}", members)


def _changes(old: PolicyRules, new: PolicyRules) -> Iterator[str]:
    """Sets before the chains that look them up, chains before the pods that lead there; back the
    other way round."""
    changed = [n for n, f in new.filters.items() if old.filters.get(n) != f]
    gone = [n for n in old.filters if n not in new.filters]
    sets = {n: (_sets(old.filters.get(n)), _sets(new.filters.get(n))) for n in (*changed, *gone)}
    for name in changed:
        yield from _fill(name, old.filters.get(name), new.filters[name], *sets[name])
    yield from _lead(old, new)
    if old.closes and not new.closes:
        yield f"flush chain {_PATH} {_UNKNOWN.name}"
    elif new.closes and not old.closes:
        yield from marked_rules(_PATH, _UNKNOWN)
    for name in (*changed, *gone):
        if before := old.filters.get(name):
            yield from _clear(chain_name(before.direction, name), name in new.filters, *sets[name])


_Sets = tuple[_Kind, ...]


def _fill(name: str, old: Filter | None, new: Filter, before: _Sets, after: _Sets) -> Iterator[str]:
    chain = chain_name(new.direction, name)
    if old is None:
        yield f"add chain {_PATH} {chain}"
    empty = Filter(new.direction)
    for kind in after:
        a_set = f"{chain}-{kind.suffix}"
        if kind not in before:
            yield f"add set {_PATH} {a_set} {{ {kind.fields} }}"
        # Sets know the hashes of their members; to make others of them costs most of all this.
        known, members = (getattr(f, kind.part) for f in (old or empty, new))
        # A range may take the place of some that it contains.
        for verb, changed in (("delete", known - members), ("add", members - known)):
            yield from _elements(verb, a_set, {kind.write(m) for m in changed if kind.holds(m)})
    made = _filter_chain(name, new, after)
    if old is None or made != _filter_chain(name, old, before):
        yield f"flush chain {_PATH} {chain}"
        yield from marked_rules(_PATH, made)


def _clear(chain: str, stays: bool, before: _Sets, after: _Sets) -> Iterator[str]:
    """Delete what a filter had, and has no more."""
    if not stays:
        yield f"flush chain {_PATH} {chain}"
        yield f"delete chain {_PATH} {chain}"
    yield from (f"delete set {_PATH} {chain}-{kind.suffix}" for kind in before if kind not in after)


def _lead(old: PolicyRules, new: PolicyRules) -> Iterator[str]:
    """Lead pods to their filters; one that becomes known is limited before."""
    gone = old.bridges - new.bridges
    yield from _elements("delete", "bridges", {f'"{name}"' for name in gone})
    for suffix in _PLACES:
        yield from _elements("delete", f"known{suffix}", _members(old.known - new.known, suffix))
        for direction in DIRECTIONS:
            name = f"{direction}{suffix}"
            before, after = (_verdicts(rules, direction, suffix) for rules in (old, new))
            # A map's key can lead elsewhere only once it is deleted; both happen at once.
            yield from _elements("delete", name, {k for k in before if before[k] != after.get(k)})
            fresh = {f"{k} : {v}" for k, v in after.items() if before.get(k) != v}
            yield from _elements("add", name, fresh)
        for verb, places in (
            ("delete", old.limited - new.limited),
            ("add", new.limited - old.limited),
        ):
            pairs = {f"{m} . {m}" for m in _members(places, suffix)}
            yield from _elements(verb, f"itself{suffix}", pairs)
        yield from _elements("add", f"known{suffix}", _members(new.known - old.known, suffix))
    fresh = {f'"{name}"' for name in new.bridges - old.bridges}
    yield from _elements("add", "bridges", fresh)


def _verdicts(rules: PolicyRules, direction: Direction, suffix: str) -> dict[str, str]:
    return {
        _member(place): f"jump {chain_name(direction, name)}"
        for place, name in rules.names(direction).items()
        if _suffix(place) == suffix
    }


def _suffix(place: Place) -> str:
    return "" if isinstance(place, str) else str(place.version)


def _member(place: Place) -> str:
    return f'"{place}"' if isinstance(place, str) else str(place)


def _members(places: Iterable[Place], suffix: str) -> set[str]:
    return {_member(place) for place in places if _suffix(place) == suffix}


def _elements(verb: str, name: str, members: Collection[str]) -> Iterator[str]:
    if members:
        yield f"{verb} element {_PATH} {name} {{ {', '.join(sorted(members))} }}"


def chains_of(rules: PolicyRules) -> dict[str, ChainRules]:
    """The chains that should have rules, by name."""
    filters = (_filter_chain(name, found) for name, found in rules.filters.items())
    chains = (_FORWARD, *[_UNKNOWN] * rules.closes, *filters)
    return {c.name: ChainRules("inet", c.name, c.digests) for c in chains}


def read_chains() -> dict[str, ChainRules]:
    """The chains that have rules, by name. Raises KernelError."""
    with open_netlink(NETLINK_NETFILTER) as nl:
        return {each.chain: each for each in read_rules(nl, "inet", TABLE)}


# -- the kernel


def load_policy(script: str) -> None:
    """Load a script in one transaction. Raises KernelError, MissingTool."""
    run_nft(script)


def policy_is_present() -> bool:
    """Whether the table is there. Raises KernelError."""
    with open_netlink(NETLINK_NETFILTER) as nl:
        return table_is_present(nl, "inet", TABLE)


def read_cuts() -> list[Connection]:
    """The connections that are remembered as cut, each in both directions. Raises KernelError."""
    with open_netlink(NETLINK_NETFILTER) as nl:
        sets = {v: Set("inet", f"cut{v}", (_CUT_FIELDS[v],)) for v in _IP}
        keys = {v: [e.key for e in read_elements(nl, s, TABLE) or ()] for v, s in sets.items()}
    found = (_CUT_KEYS[v].unpack(key) for v, each in keys.items() for key in each)
    return [Connection(ip_address(a), ip_address(b), *rest) for a, b, *rest in found]


def is_whole(rules: PolicyRules) -> bool:
    """Whether the table's chains have just the rules that they should. Raises KernelError."""
    return read_chains() == chains_of(rules)


def count_packets(name: str, found: Filter) -> tuple[int, int]:
    """First packets of connections that a filter let through, and those that it did not.

    Since its rules were made; 0 where they are not there. Raises KernelError, MissingTool.
    """
    program = require_program("nft", "install the package nftables on this node")
    chain = chain_name(found.direction, name)
    try:
        listed = run_program(
            [program, "-j", "list", "chain", "inet", TABLE, chain], ("list", f"chain {chain}")
        )
    except KernelError:
        return 0, 0
    rules = [item["rule"]["expr"] for item in json.loads(listed)["nftables"] if "rule" in item]
    *before, last = [
        next((part["counter"]["packets"] for part in rule if "counter" in part), 0)
        for rule in rules
    ] or [0]
    return (sum(before) + last, 0) if found.everything else (sum(before), last)


def remove_policy() -> bool:
    """Remove the table, and with it all limits; whether it was there. Raises KernelError."""
    if not policy_is_present():
        return False
    run_nft(f"add table {_PATH}\ndelete table {_PATH}\n")
    return True
