"""An nftables table as a value: rendered by one function, loaded by the program `nft`.

Rules hardly ever change: they match sets, and an attachment is at most an element of some
(linux/netfilter/nf_tables.h). So the cost of a packet does not grow with pods, and only elements
(see `set_messages.py`) are written per call.

Each rule carries a digest of what it is to be in its comment. A table is whole where its chains
list just these digests, so a rule that is missing, foreign, replaced, out of order or of another
version of podwire is seen. The comment of the table itself would not do: the kernel keeps that of
the table's creation (net/netfilter/nf_tables_api.c, nf_tables_updtable), whatever is loaded later.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from kernel.diff import Change, Key, by_key, diff
from kernel.errors import KernelError
from kernel.model import ChainRules, Element, IPNetwork
from kernel.netlink.codec import Message, attributes, be32, nfgen, string, text
from kernel.netlink.socket import NETLINK_NETFILTER, Answer, Netlink, open_netlink
from kernel.programs import require_program, run_program

TABLE = "podwire"
_COMMENT = "made by podwire, which rebuilds it when it is removed"
_MARK = "podwire "
_DIGEST_DIGITS = 8
_DYNAMIC_MAX = 65535
"""Elements that packets may add to a set."""

# linux/netfilter/nf_tables.h
SUBSYSTEM = 10 << 8
_GETTABLE, _DELTABLE, _GETRULE = SUBSYSTEM | 1, SUBSYSTEM | 2, SUBSYSTEM | 7
_GETOBJ = SUBSYSTEM | 19
_TABLE_NAME, _RULE_TABLE, _RULE_CHAIN, _RULE_USERDATA = 1, 1, 2, 7
_USERDATA_COMMENT = 0  # libnftnl/udata.h, NFTNL_UDATA_RULE_COMMENT
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_OBJECT_COUNTER, _COUNTER_PACKETS = 1, 2
HEADER_BYTES = 4  # struct nfgenmsg
IFNAMSIZ = 16  # linux/if.h
ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
"""nft's types of addresses, by version."""
_BATCH_BEGIN, _BATCH_END = 16, 17
_BATCH_GENERATION = 1  # NFNL_BATCH_GENID, linux/netfilter/nfnetlink.h
_FAMILY = {"inet": 1, "arp": 3, "bridge": 7}  # NFPROTO_*
ABSENT = frozenset({errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Set:
    """A set of podwire's table of a family. fields: their types, in order; interval: of ranges.

    data: for a map, the types of what it leads to.
    timeout: of a set that packets fill; an element lives for so long after its last packet.
    expression: what is looked up, where nft has no name for its type.
    """

    family: str
    name: str
    fields: tuple[str, ...]
    interval: bool = False
    data: tuple[str, ...] = ()
    timeout: str = ""
    expression: str = ""

    def element(
        self, key: bytes, key_end: bytes | None = None, data: bytes | None = None
    ) -> Element:
        """An element; key_end: the last of an interval; data: what a map leads it to."""
        return Element(self.family, self.name, key, key_end, self.is_tree, data)

    @property
    def is_tree(self) -> bool:
        """Whether the kernel keeps starts and ends as elements of their own (nft_set_rbtree.c).

        It does so for intervals of one field; those of several have both ends in one element.
        """
        return self.interval and len(self.fields) == 1


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. hook: its type, hook and priority, empty where it is no base chain; rules: in nft's
    language, in order.
    """

    name: str
    hook: str
    rules: tuple[str, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """What the comments of its rules hold."""
        return tuple(_digest(self.hook, rule) for rule in self.rules)


@dataclass(frozen=True)
class Table:
    """What podwire's table of a family (inet, arp, bridge) holds, or a feature's part of it."""

    family: str
    sets: tuple[Set, ...] = ()
    chains: tuple[Chain, ...] = ()
    counters: tuple[str, ...] = ()

    def __add__(self, other: Table) -> Table:
        """Both parts of one family's table."""
        return Table(
            self.family,
            self.sets + other.sets,
            self.chains + other.chains,
            self.counters + other.counters,
        )

    @cached_property  # every ADD compares them
    def rules(self) -> dict[Key, ChainRules]:
        """Its chains as the comparison knows them."""
        return by_key(ChainRules(self.family, chain.name, chain.digests) for chain in self.chains)


def link_key(name: str) -> bytes:
    """A link's name as a field of a key (ifname)."""
    return name.encode().ljust(IFNAMSIZ, b"\0")


def link_of_key(key: bytes) -> str:
    """The link's name that is the first field of a key."""
    return key[:IFNAMSIZ].rstrip(b"\0").decode()


def disjoint(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    """The same addresses in prefixes that do not overlap, which an interval set asks for."""
    known = tuple(prefixes)
    four = collapse_addresses(p for p in known if isinstance(p, IPv4Network))
    six = collapse_addresses(p for p in known if isinstance(p, IPv6Network))
    return [*four, *six]


def _digest(hook: str, rule: str) -> str:
    return hashlib.sha256(f"{hook}\n{rule}".encode()).hexdigest()[:_DIGEST_DIGITS]


_ANEW = ("add", "flush", "delete")


def render(table: Table) -> str:
    """A script for `nft -f` that creates what is missing, and its chains anew; elements and other
    chains stay."""
    path = f"{table.family} {TABLE}"
    lines = [f'add table {path} {{ comment "{_COMMENT}"; }}']
    # The kernel moves no chain to another priority (net/netfilter/nf_tables_api.c,
    # nf_tables_updchain), where another version may have it. One must be there to be deleted.
    lines += [f"{verb} chain {path} {c.name}" for c in table.chains for verb in _ANEW]
    lines.append(f"table {path} {{")
    lines += [f"  {_set_kind(s)} {s.name} {{ {_set_type(s)} }}" for s in table.sets]
    lines += [f"  counter {name} {{ }}" for name in table.counters]
    lines += [f"  chain {c.name} {{ {c.hook}; policy accept; }}" for c in table.chains]
    lines.append("}")
    for chain in table.chains:
        lines += marked_rules(path, chain)
    return "\n".join([*lines, ""])


def marked_rules(table: str, chain: Chain) -> list[str]:
    """Statements that add a chain's rules, each with its digest. table: with its family."""
    marked = zip(chain.rules, chain.digests, strict=True)
    path = f"{table} {chain.name}"
    return [f'add rule {path} {rule} comment "{_MARK}{digest}"' for rule, digest in marked]


def _set_kind(a_set: Set) -> str:
    return "map" if a_set.data else "set"


def _set_type(a_set: Set) -> str:
    types = " : ".join(" . ".join(fields) for fields in (a_set.fields, a_set.data) if fields)
    kind = f"typeof {a_set.expression}" if a_set.expression else f"type {types}"
    if a_set.timeout:
        return f"{kind}; flags dynamic, timeout; timeout {a_set.timeout}; size {_DYNAMIC_MAX};"
    return f"{kind};{' flags interval;' * a_set.interval}"


def table_changes(nl: Netlink, table: Table) -> tuple[Change[ChainRules], ...]:
    """The chains whose rules are not as desired; one without any rule counts as missing."""
    desired = table.rules
    return tuple(diff(desired, by_key(read_rules(nl, table.family)), desired))


def read_rules(nl: Netlink, family: str, table: str = TABLE) -> list[ChainRules]:
    """The chains of a table of podwire's that have rules."""
    body = header(family) + text(_RULE_TABLE, table)
    try:
        found = nl.dump(Message(_GETRULE, 0, body, f"list rules of nft table {family} {table}"))
    except KernelError as error:
        if error.errno not in ABSENT:
            raise
        return []
    digests: dict[str, list[str]] = {}
    for rule in found:
        chain, digest = read_digest(rule)
        digests.setdefault(chain, []).append(digest)
    return [ChainRules(family, chain, tuple(each)) for chain, each in digests.items()]


def read_digest(rule: Message) -> tuple[str, str]:
    """The chain of an NFT_MSG_NEWRULE, and the digest in its comment; empty where it has none."""
    found = attributes(rule.body, HEADER_BYTES)
    comment = comment_in(found.get(_RULE_USERDATA, b""))
    digest = comment.removeprefix(_MARK) if comment.startswith(_MARK) else ""
    return string(found.get(_RULE_CHAIN, b"")), digest


def comment_in(userdata: bytes) -> str:
    """The comment in a rule's user data; empty where there is none."""
    # Type, length and value, one byte each for the first two (libnftnl/udata.h).
    while len(userdata) >= 2:
        kind, end = userdata[0], 2 + userdata[1]
        if kind == _USERDATA_COMMENT:
            return string(userdata[2:end])
        userdata = userdata[end:]
    return ""


def ensure_table(nl: Netlink, table: Table) -> tuple[Change[ChainRules], ...]:
    """Bring back what is missing of a table; what was not as desired. Raises like `load`."""
    changes = table_changes(nl, table)
    if changes:
        load(table)
    return changes


def load(*tables: Table) -> None:
    """Create what is missing of tables in one transaction; elements of sets stay.

    Raises MissingTool where the node has no `nft`, KernelError where the kernel refuses.
    """
    run_nft("".join(map(render, tables)))


def run_nft(script: str) -> None:
    """Load a script in one transaction. Raises MissingTool, KernelError."""
    program = require_program("nft", "install the package nftables on this node")
    run_program([program, "-f", "-"], ("load", "podwire's nftables tables"), script)


def open_nft() -> AbstractContextManager[Netlink]:
    """An nftables socket in the calling thread's namespace."""
    return open_netlink(NETLINK_NETFILTER)


def table_is_present(nl: Netlink, family: str, name: str = TABLE) -> bool:
    """Whether a family's table is there, complete or not."""
    message = Message(_GETTABLE, 0, header(family) + text(_TABLE_NAME, name), "look up nft table")
    return bool(nl.run([message], tolerate=ABSENT)[0].objects)


def remove_part(part: Table) -> bool:
    """Remove chains, sets and counters of a part; whether it was there.

    Raises KernelError, MissingTool.
    """
    with open_nft() as nl:
        if not any(read_counters(nl, [name]) for name in part.counters):
            return False
    delete_part(part)
    return True


def delete_part(part: Table) -> None:
    """Delete chains, sets and counters of a part, with all that is in them, in one transaction.

    Raises KernelError, MissingTool.
    """
    kinds = (("chain", part.chains), ("set", part.sets), ("counter", part.counters))
    path = f"{part.family} {TABLE}"
    removal = [f"delete {kind} {path} {getattr(m, 'name', m)}" for kind, ms in kinds for m in ms]
    # Created first where one was removed, so that all can be deleted in one transaction.
    run_nft("\n".join([render(part), *removal, ""]))


def read_counters(nl: Netlink, names: Iterable[str]) -> tuple[int, ...]:
    """The packets that counters of `inet podwire` counted; nothing where any is missing."""
    answers = nl.run([_counter_message(name) for name in names], tolerate=ABSENT)
    if not all(answer.objects for answer in answers):
        return ()
    bodies = (answer.objects[0].body for answer in answers)
    data = (attributes(attributes(b, HEADER_BYTES).get(_OBJ_DATA, b"")) for b in bodies)
    return tuple(int.from_bytes(d.get(_COUNTER_PACKETS, b""), "big") for d in data)


def _counter_message(name: str) -> Message:
    body = header("inet") + text(_OBJ_TABLE, TABLE) + text(_OBJ_NAME, name)
    return Message(_GETOBJ, 0, body + be32(_OBJ_TYPE, _OBJECT_COUNTER), f"read nft counter {name}")


def remove_tables(nl: Netlink, keep: Collection[str] = ()) -> None:
    """Remove podwire's tables with all that is in them; those that are absent are no error.

    keep: the families whose tables stay.
    """
    messages = [
        Message(_DELTABLE, 0, header(f) + text(_TABLE_NAME, TABLE), f"remove nft table {f} {TABLE}")
        for f in _FAMILY
        if f not in keep and table_is_present(nl, f)
    ]
    # One transaction: the next one would wait until this one is cleaned up, a grace period later.
    # Who removes one of them meanwhile removes them all.
    if messages:
        commit(nl, messages, ABSENT)


def header(family: str, resource: int = 0) -> bytes:
    """A struct nfgenmsg for a family of podwire's tables; empty: of none."""
    return nfgen(_FAMILY.get(family, 0), resource)


def commit(
    nl: Netlink,
    messages: Sequence[Message],
    tolerate: frozenset[int] = frozenset(),
    generation: int = 0,
) -> list[Answer]:
    """Run messages as one transaction. Raises KernelError for what is not tolerated.

    generation: the one of the rules that it is for; refused with ERESTART in another. 0: any.
    """
    begin = _batch(_BATCH_BEGIN, be32(_BATCH_GENERATION, generation) if generation else b"")
    return nl.run([begin, *messages, _batch(_BATCH_END)], tolerate=tolerate)


def _batch(kind: int, attributes: bytes = b"") -> Message:
    # The subsystem's number is the resource id.
    body = header("", SUBSYSTEM >> 8) + attributes
    return Message(kind, 0, body, "commit nft transaction", ack=False)
