"""podwire's nftables tables: the skeleton once per node through `nft`, members through netlink.

Rules never change after the skeleton is in place: they match sets, and an attachment is at most a
member of some (linux/netfilter/nf_tables.h).  So the cost of a packet does not grow with pods.

Packet path of the skeleton: a pod that reached itself through a translated address (hairpin) is
masqueraded, or the answer would be dropped as coming from nowhere; a packet that leaves the
prefixes of its own network is masqueraded, but not one to pods of other nodes (the cluster sets,
whose members are the daemon's); on a bridge, a port that is checked passes only frames
of its own MAC.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, summarize_address_range

from kernel.errors import KernelError, MissingTool
from kernel.model import ChainRules, Element, IPAddress, IPNetwork
from kernel.netlink.codec import (
    NLM_F_CREATE,
    Message,
    attribute,
    attribute_list,
    attributes,
    be32,
    nested,
    text,
)
from kernel.netlink.socket import NETLINK_NETFILTER, Netlink, open_netlink

TABLE = "podwire"
COMMENT = "made by podwire, which rebuilds it when it is removed"
# What each family's table holds: sets and chains first, then the chain's rules, in order.
_DECLARATIONS = {
    "inet": """
  set hairpin4 { type ifname . ipv4_addr . ipv4_addr; }
  set hairpin6 { type ifname . ipv6_addr . ipv6_addr; }
  set masquerade4 { type ipv4_addr; flags interval; }
  set masquerade6 { type ipv6_addr; flags interval; }
  set internal4 { type ipv4_addr . ipv4_addr; flags interval; }
  set internal6 { type ipv6_addr . ipv6_addr; flags interval; }
  set cluster4 { type ipv4_addr; flags interval; }
  set cluster6 { type ipv6_addr; flags interval; }
  chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
""",
    "bridge": """
  set checked_ports { type ifname; }
  set allowed_macs { type ifname . ether_addr; }
  chain prerouting { type filter hook prerouting priority dstnat; policy accept; }
""",
}
_RULES = {
    "inet": (
        "oifname . ip saddr . ip daddr @hairpin4 masquerade",
        "oifname . ip6 saddr . ip6 daddr @hairpin6 masquerade",
        "ip daddr 224.0.0.0/4 return",
        "ip6 daddr ff00::/8 return",
        "ip saddr @masquerade4 ip daddr @cluster4 return",
        "ip6 saddr @masquerade6 ip6 daddr @cluster6 return",
        "ip saddr @masquerade4 ip saddr . ip daddr != @internal4 masquerade",
        "ip6 saddr @masquerade6 ip6 saddr . ip6 daddr != @internal6 masquerade",
    ),
    "bridge": ("iifname @checked_ports iifname . ether saddr != @allowed_macs drop",),
}
_CHAIN = {"inet": "postrouting", "bridge": "prerouting"}
# A set that `flags interval` makes of one field is a tree of starts and ends; one of several
# fields takes both ends in one member (NFTA_SET_ELEM_KEY_END).
_TREE_SETS = frozenset({"masquerade4", "masquerade6", "cluster4", "cluster6"})
FAMILIES = tuple(_CHAIN)
CHAINS = {family: ChainRules(family, chain) for family, chain in _CHAIN.items()}
NETWORK_SETS = ("masquerade4", "masquerade6", "internal4", "internal6")
CLUSTER_SETS = ("cluster4", "cluster6")
ATTACHMENT_SETS = (
    ("inet", "hairpin4"),
    ("inet", "hairpin6"),
    ("bridge", "allowed_macs"),
    ("bridge", "checked_ports"),
)
"""The sets that attachments put members of their own into, each with its family."""

_SUBSYSTEM = 10 << 8
_GETTABLE, _DELTABLE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_GETCHAIN = _SUBSYSTEM | 4
_NEWSETELEM, _GETSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 13, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 16, 17
_FAMILY = {"inet": 1, "bridge": 7}
_ELEMENT_KEY, _ELEMENT_FLAGS, _ELEMENT_KEY_END = 1, 3, 10
_DATA_VALUE, _LIST_ELEMENT = 1, 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_USE = 1, 3, 6
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_INTERVAL_END = 1
_NAME_BYTES = 16  # IFNAMSIZ, linux/if.h
_PER_TRANSACTION = 256  # a transaction is one datagram, and the socket's buffer is finite
_ABSENT = frozenset({errno.ENOENT})


def hairpin_element(link: str, address: IPAddress) -> Element:
    """The member that lets a pod reach itself through a translated address.

    link: the node's link that leads to the pod, its bridge or its own pair's end; two networks may
    give the same address to pods behind different links.
    """
    return Element("inet", f"hairpin{address.version}", _name(link) + address.packed * 2)


def hairpin_address(element: Element) -> IPAddress | None:
    """The address that a member of the hairpin sets is of; None for any other member."""
    if not element.set_name.startswith("hairpin"):
        return None
    pair = element.key[_NAME_BYTES:]
    return ip_address(pair[: len(pair) // 2])


def element_text(element: Element) -> str:
    """An element as `nft` shows it, after its set's name."""
    fields = _FIELDS.get(element.set_name, ())
    parts = []
    start = 0
    for field in fields:
        cut = slice(start, start + _FIELD_BYTES[field])
        parts.append(_field_text(field, element.key[cut], (element.key_end or element.key)[cut]))
        start = cut.stop
    return f"{element.set_name} {' . '.join(parts)}"


# A field of a concatenation is padded to 32 bits (linux/netfilter/nf_tables.h, NFT_REG32_SIZE).
_FIELD_BYTES = {"ifname": 16, "ether_addr": 8, "ipv4_addr": 4, "ipv6_addr": 16}
_FIELDS = {
    "hairpin4": ("ifname", "ipv4_addr", "ipv4_addr"),
    "hairpin6": ("ifname", "ipv6_addr", "ipv6_addr"),
    "masquerade4": ("ipv4_addr",),
    "masquerade6": ("ipv6_addr",),
    "internal4": ("ipv4_addr", "ipv4_addr"),
    "internal6": ("ipv6_addr", "ipv6_addr"),
    "cluster4": ("ipv4_addr",),
    "cluster6": ("ipv6_addr",),
    "checked_ports": ("ifname",),
    "allowed_macs": ("ifname", "ether_addr"),
}


def _field_text(field: str, first: bytes, last: bytes) -> str:
    if field == "ifname":
        return first.rstrip(b"\0").decode(errors="replace")
    if field == "ether_addr":
        return first[:6].hex(":")
    if first == last:
        return str(ip_address(first))
    networks = list(summarize_address_range(ip_address(first), ip_address(last)))
    return str(networks[0]) if len(networks) == 1 else f"{ip_address(first)}-{ip_address(last)}"


def _name(link: str) -> bytes:
    return link.encode().ljust(_NAME_BYTES, b"\0")


def spoof_check_elements(port: str, mac: str) -> tuple[Element, Element]:
    """The members that hold a bridge port to one MAC address."""
    name = _name(port)
    raw = bytes.fromhex(mac.replace(":", "")).ljust(8, b"\0")
    return Element("bridge", "allowed_macs", name + raw), Element("bridge", "checked_ports", name)


def masquerade_elements(groups: Iterable[Iterable[IPNetwork]]) -> frozenset[Element]:
    """The members for networks (each a group of prefixes) whose pods are masqueraded.

    Interval sets hold no overlaps, so of nested prefixes the widest stands for all; within a
    network, traffic from any of its prefixes to any other keeps its address.
    """
    return _masquerade_elements(tuple(map(tuple, groups)))


# Every ADD of a masqueraded network asks, and networks hardly change.
@lru_cache(maxsize=8)
def _masquerade_elements(networks: tuple[tuple[IPNetwork, ...], ...]) -> frozenset[Element]:
    elements: set[Element] = set()
    for version, kind in ((4, IPv4Network), (6, IPv6Network)):
        mine = [[p for p in group if isinstance(p, kind)] for group in networks]
        widest = _widest(p for group in mine for p in group)
        elements |= {_interval(f"masquerade{version}", (prefix,)) for prefix in widest}
        pairs = {(_cover(widest, a), _cover(widest, b)) for g in mine for a in g for b in g}
        elements |= {_interval(f"internal{version}", pair) for pair in pairs}
    return frozenset(elements)


def _widest(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    # Not collapsed: two networks side by side would become one, and keep their addresses.
    known = set(prefixes)
    return [p for p in known if not any(p != q and p.subnet_of(q) for q in known)]  # type: ignore[arg-type]


def _cover(widest: list[IPNetwork], prefix: IPNetwork) -> IPNetwork:
    return next(w for w in widest if prefix.subnet_of(w))  # type: ignore[arg-type]


def _interval(set_name: str, prefixes: tuple[IPNetwork, ...]) -> Element:
    start = b"".join(p.network_address.packed for p in prefixes)
    end = b"".join(p.broadcast_address.packed for p in prefixes)
    return Element("inet", set_name, start, end)


def cluster_elements(ranges: Iterable[tuple[IPAddress, IPAddress]]) -> frozenset[Element]:
    """The members for ranges (first, last) of pods' addresses; the ranges may not overlap."""
    return frozenset(
        Element("inet", f"cluster{first.version}", first.packed, last.packed)
        for first, last in ranges
    )


def load_skeleton(family: str) -> None:
    """Create what is missing of a family's table in one transaction; members of sets stay.

    Raises MissingTool where the node has no `nft`, KernelError where the kernel refuses.
    """
    chain = f"{family} {TABLE} {_CHAIN[family]}"
    rules = "".join(f"add rule {chain} {rule}\n" for rule in _RULES[family])
    table = f'table {family} {TABLE} {{\n  comment "{COMMENT}"{_DECLARATIONS[family]}}}\n'
    run_nft(f"{table}flush chain {chain}\n{rules}")


_PROGRAM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")


def find_nft() -> str | None:
    """The path of the program nft; the caller's PATH has no say in it."""
    paths = (f"{folder}/nft" for folder in _PROGRAM_FOLDERS)
    return next((p for p in paths if os.path.isfile(p) and os.access(p, os.X_OK)), None)


def run_nft(script: str) -> None:
    """Load a script in one transaction. Raises MissingTool, KernelError."""
    import subprocess

    program = find_nft()
    if program is None:
        raise MissingTool("run", "nft", 0, "install the package nftables on this node")
    # The caller's environment stays out: it may hold the runtime's secrets.
    done = subprocess.run(
        [program, "-f", "-"],
        input=script.encode(),
        capture_output=True,
        timeout=60,
        env={},
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise KernelError("load", "podwire's nftables tables", 0, "; ".join(words[:3]))


def open_nft() -> AbstractContextManager[Netlink]:
    """An nftables socket in the calling thread's namespace."""
    return open_netlink(NETLINK_NETFILTER)


def read_elements(nl: Netlink, family: str, set_name: str) -> frozenset[Element] | None:
    """All members of a set; None where table or set does not exist."""
    body = _generic(family) + text(_LIST_TABLE, TABLE) + text(_LIST_SET, set_name)
    try:
        answers = nl.dump(Message(_GETSETELEM, 0, body, f"list nft set {set_name}"))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    items = [item for answer in answers for item in _list_items(answer)]
    return frozenset(_read_tree(family, set_name, items) if set_name in _TREE_SETS else
                     _read_flat(family, set_name, items))  # fmt: skip


def _list_items(answer: Message) -> list[dict[int, bytes]]:
    elements = attributes(answer.body, 4).get(_LIST_ELEMENTS, b"")
    return [attributes(payload) for _kind, payload in attribute_list(elements)]


def _value(item: dict[int, bytes], kind: int) -> bytes | None:
    return attributes(item[kind]).get(_DATA_VALUE) if kind in item else None


def _read_flat(family: str, name: str, items: list[dict[int, bytes]]) -> list[Element]:
    found = ((_value(item, _ELEMENT_KEY), _value(item, _ELEMENT_KEY_END)) for item in items)
    return [Element(family, name, key, end) for key, end in found if key is not None]


def _read_tree(family: str, name: str, items: list[dict[int, bytes]]) -> list[Element]:
    starts: list[bytes] = []
    ends: list[bytes] = []
    for item in items:
        key = _value(item, _ELEMENT_KEY)
        flags = struct.unpack("!I", item.get(_ELEMENT_FLAGS, bytes(4)))[0]
        if key is not None:
            (ends if flags & _INTERVAL_END else starts).append(key)
    ends.sort()
    return [Element(family, name, start, _end_after(start, ends)) for start in starts]


def _end_after(start: bytes, ends: list[bytes]) -> bytes:
    after = next((end for end in ends if end > start), None)
    if after is None:
        return b"\xff" * len(start)
    return (int.from_bytes(after) - 1).to_bytes(len(start))


def spoof_elements_of(nl: Netlink, port: str) -> tuple[Element, ...]:
    """The members that hold a port to a MAC, found by the port's name."""
    name = _name(port)
    found = [read_elements(nl, "bridge", s) or () for s in ("allowed_macs", "checked_ports")]
    return tuple(e for members in found for e in members if e.key.startswith(name))


def skeleton_is_present(nl: Netlink, family: str) -> bool:
    """Whether a family's table still has as many rules as podwire put there."""
    body = _generic(family) + text(_CHAIN_TABLE, TABLE) + text(_CHAIN_NAME, _CHAIN[family])
    found = nl.run([Message(_GETCHAIN, 0, body, "look up nft chain")], tolerate=_ABSENT)[0].objects
    # A chain's users are its rules, and rules that jump to it, of which there are none.
    users = attributes(found[0].body, 4).get(_CHAIN_USE, bytes(4)) if found else bytes(4)
    return int.from_bytes(users, "big") == len(_RULES[family])


def change_elements(nl: Netlink, add: Collection[Element], remove: Collection[Element]) -> None:
    """Add and remove members in one transaction; adding a present member is no change.

    Raises KernelError with errno ENOENT where the tables (or a member to remove) are missing.
    """
    messages = [_element_message(_DELSETELEM, e) for e in _ordered(remove)]
    messages += [_element_message(_NEWSETELEM, e) for e in _ordered(add)]
    if messages:
        nl.run([_batch(_BATCH_BEGIN), *messages, _batch(_BATCH_END)])


def add_elements(nl: Netlink, elements: Sequence[Element]) -> None:
    """Add any number of members, some hundred in each transaction."""
    for start in range(0, len(elements), _PER_TRANSACTION):
        change_elements(nl, elements[start : start + _PER_TRANSACTION], ())


def exchange_elements(nl: Netlink, add: Collection[Element], remove: Collection[Element]) -> None:
    """Add and remove members, in one transaction where they fit into one, else removing first."""
    if len(add) + len(remove) <= _PER_TRANSACTION:
        change_elements(nl, add, remove)
        return
    going = list(remove)
    for start in range(0, len(going), _PER_TRANSACTION):
        change_elements(nl, (), going[start : start + _PER_TRANSACTION])
    add_elements(nl, list(add))


def remove_elements(nl: Netlink, elements: Collection[Element]) -> None:
    """Remove members; those that are gone already are no error."""
    try:
        # Each transaction waits until the one before it was cleaned up, a grace period later.
        change_elements(nl, (), elements)
        return
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    for element in _ordered(elements):
        message = _element_message(_DELSETELEM, element)
        nl.run([_batch(_BATCH_BEGIN), message, _batch(_BATCH_END)], tolerate=_ABSENT)


def table_is_present(nl: Netlink, family: str) -> bool:
    """Whether a family's table is there, complete or not."""
    message = Message(_GETTABLE, 0, _generic(family) + text(1, TABLE), "look up nft table")
    return bool(nl.run([message], tolerate=_ABSENT)[0].objects)


def remove_tables(nl: Netlink) -> None:
    """Remove podwire's tables with all that is in them."""
    for family in _FAMILY:
        message = Message(
            _DELTABLE, 0, _generic(family) + text(1, TABLE), f"remove table {family} {TABLE}"
        )
        nl.run([_batch(_BATCH_BEGIN), message, _batch(_BATCH_END)], tolerate=_ABSENT)


def _ordered(elements: Collection[Element]) -> list[Element]:
    # A port's MAC is allowed before the port is checked, and the other way round on removal
    # (names sort that way), so no frame is dropped in between.
    return sorted(elements, key=lambda e: (e.family, e.set_name, e.key))


def _generic(family: str, resource: int = 0) -> bytes:
    return struct.pack("!BBH", _FAMILY.get(family, 0), 0, resource)


def _batch(kind: int) -> Message:
    # struct nfgenmsg with the subsystem's number as resource id (linux/netfilter/nfnetlink.h).
    body = struct.pack("!BBH", 0, 0, 10)
    return Message(kind, 0, body, "commit nft transaction", ack=False)


def _element_message(kind: int, element: Element) -> Message:
    key = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, element.key))
    members = [key]
    if element.key_end is not None and element.set_name in _TREE_SETS:
        members += _tree_end(element.key_end)
    elif element.key_end is not None:
        members = [key + nested(_ELEMENT_KEY_END, attribute(_DATA_VALUE, element.key_end))]
    listed = nested(_LIST_ELEMENTS, *(nested(_LIST_ELEMENT, m) for m in members))
    body = _generic(element.family) + text(_LIST_TABLE, TABLE) + text(_LIST_SET, element.set_name)
    verb, flags = ("add to", NLM_F_CREATE) if kind == _NEWSETELEM else ("remove from", 0)
    return Message(kind, flags, body + listed, f"{verb} nft set {element.set_name}")


def _tree_end(key_end: bytes) -> list[bytes]:
    after = int.from_bytes(key_end) + 1
    if after >> (8 * len(key_end)):
        return []
    value = attribute(_DATA_VALUE, after.to_bytes(len(key_end)))
    return [nested(_ELEMENT_KEY, value) + be32(_ELEMENT_FLAGS, _INTERVAL_END)]
