"""nftables rules of the reference plugins for one container, and their removal.

Through netlink alone, whichever program made them: iptables-nft's chains are chains of the tables
`nat`. What other containers have, and what all of them share, stays.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.codec import Message, attribute, attributes, nfgen, string, text
from kernel.netlink.socket import Netlink
from kernel.nftables.foreign import has_chain, jump_target, xtables_comment
from kernel.nftables.table import ABSENT, HEADER_BYTES, SUBSYSTEM, comment_in, commit, open_nft

# linux/netfilter/nf_tables.h
_DELCHAIN = SUBSYSTEM | 5
_GETRULE, _DELRULE = SUBSYSTEM | 7, SUBSYSTEM | 8
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_USERDATA = 1, 2, 3, 7
_INET, _IP, _BRIDGE, _IP6 = 1, 2, 7, 10  # NFPROTO_*
_ATTEMPTS = 4
_CHANGED = frozenset({*ABSENT, errno.EBUSY})


@dataclass(frozen=True, slots=True)
class Traces:
    """How the reference plugins name what an attachment has.

    chains: of iptables, each with the comment of the rules that lead to it; container_id: the
    comment of `portmap`'s nftables rules; masquerade: what the comments of `bridge` and `ptp` begin
    with; spoof_check: of the chains of `macspoofchk`, and of the comments of their rules. Empty
    for what is not to be removed. addresses: the attachment's, if they are known: a container with
    several attachments has one ID.
    """

    chains: Mapping[str, str]
    container_id: str = ""
    masquerade: str = ""
    spoof_check: str = ""
    addresses: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """What identifies a rule. to: the chain that it leads to, empty for none."""

    family: int
    table: str
    chain: str
    handle: bytes
    comment: str
    to: str
    body: bytes


_Place = tuple[int, str, str]
"""Family, table and chain."""


def remove_rules(traces: Traces) -> int:
    """Remove the rules and chains in one transaction; how many there were. Raises KernelError."""
    with open_nft() as nl:
        for attempt in range(_ATTEMPTS):
            messages = list(_removals(nl, traces))
            try:
                if messages:
                    commit(nl, messages)
            except KernelError as error:
                # Another program has removed some of it meanwhile, or added a jump.
                if error.errno not in _CHANGED or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return len(messages)
    return 0


def find_comments(chains: Sequence[_Place]) -> list[tuple[str, str]]:
    """(comment, chain that the rule leads to) of the rules of some chains. Raises KernelError."""
    with open_nft() as nl:
        return [(rule.comment, rule.to) for place in chains for rule in _read_rules(nl, place)]


MASQUERADE: tuple[_Place, ...] = ((_INET, "cni_plugins_masquerade", "masq_checks"),)
"""Where `bridge` and `ptp` have a rule for each attachment (pkg/ip/ipmasq_nftables_linux.go)."""
_PORTS: tuple[_Place, ...] = tuple(
    (family, "cni_hostport", chain)
    for family in (_IP, _IP6)
    for chain in ("hostports", "hostip_hostports", "masquerading")
)
"""Where `portmap` has them (plugins/meta/portmap/portmap_nftables.go)."""
IPTABLES: tuple[_Place, ...] = tuple(
    (family, "nat", chain)
    for family in (_IP, _IP6)
    for chain in ("POSTROUTING", "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SNAT")
)
"""What leads to the chains of containers (pkg/ip/ipmasq_iptables_linux.go, portmap_iptables.go)."""
_SPOOF_CHECK: _Place = (_BRIDGE, "nat", "PREROUTING")


def _removals(nl: Netlink, traces: Traces) -> Iterator[Message]:
    if traces.container_id:
        rules = _matching(nl, _PORTS, lambda r: r.comment == traces.container_id)
        yield from (_delete_rule(rule) for rule in rules if _is_of(rule, traces.addresses))
    if traces.masquerade:
        found = _matching(nl, MASQUERADE, lambda r: r.comment.startswith(traces.masquerade))
        yield from map(_delete_rule, found)
    yield from _iptables_removals(nl, traces.chains)
    if traces.spoof_check:
        yield from _spoof_check_removals(nl, traces.spoof_check)


def _iptables_removals(nl: Netlink, chains: Mapping[str, str]) -> Iterator[Message]:
    present = [(f, "nat", c) for f in (_IP, _IP6) for c in chains if has_chain(nl, f, "nat", c)]
    if not present:
        return
    jumps = _matching(nl, IPTABLES, lambda r: r.to in chains)
    for place in present:
        family, _table, name = place
        leading = [rule for rule in jumps if rule.family == family and rule.to == name]
        inside = _read_rules(nl, place)
        # The name is a digest of network and container ID together: "a" "bc" has that of "ab" "c".
        if {r.comment for r in (*leading, *inside)} <= {"", chains[name]}:
            yield from map(_delete_rule, leading)
            yield from _delete_chain(place, has_rules=bool(inside))


def _spoof_check_removals(nl: Netlink, reference: str) -> Iterator[Message]:
    comment, name = f"macspoofchk-{reference}", f"cni-br-iface-{reference}"
    yield from map(_delete_rule, _matching(nl, [_SPOOF_CHECK], lambda r: r.comment == comment))
    for chain in (name, f"{name}-mac"):
        place = (_BRIDGE, "nat", chain)
        if has_chain(nl, *place):
            yield from _delete_chain(place, has_rules=bool(_read_rules(nl, place)))


def _is_of(rule: Rule, addresses: Iterable[IPAddress]) -> bool:
    """Whether a rule names one of the addresses; yes where none is known."""
    packed = [address.packed for address in addresses]
    return not packed or any(each in rule.body for each in packed)


def _matching(nl: Netlink, places: Sequence[_Place], fits: Callable[[Rule], bool]) -> list[Rule]:
    return [rule for place in places for rule in _read_rules(nl, place) if fits(rule)]


def _read_rules(nl: Netlink, place: _Place) -> list[Rule]:
    family, table, chain = place
    body = nfgen(family) + text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
    try:
        found = nl.dump(Message(_GETRULE, 0, body, f"list rules of nft chain {table} {chain}"))
    except KernelError as error:
        if error.errno not in ABSENT:
            raise
        return []
    # A kernel may list all rules of the family where table or chain is absent.
    return [rule for m in found if (rule := _parse_rule(m)).chain == chain and rule.table == table]


def _parse_rule(message: Message) -> Rule:
    found = attributes(message.body, HEADER_BYTES)
    table, chain = string(found[_RULE_TABLE]), string(found[_RULE_CHAIN])
    comment = comment_in(found.get(_RULE_USERDATA, b"")) or xtables_comment(message)
    handle, to = found[_RULE_HANDLE], jump_target(message)
    return Rule(message.body[0], table, chain, handle, comment, to, message.body)


def _delete_rule(rule: Rule) -> Message:
    body = nfgen(rule.family) + text(_RULE_TABLE, rule.table) + text(_RULE_CHAIN, rule.chain)
    body += attribute(_RULE_HANDLE, rule.handle)
    return Message(_DELRULE, 0, body, f"delete rule of nft chain {rule.table} {rule.chain}")


def _delete_chain(place: _Place, *, has_rules: bool) -> Iterator[Message]:
    family, table, chain = place
    if has_rules:
        # Without a handle all of its rules go.
        body = nfgen(family) + text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
        yield Message(_DELRULE, 0, body, f"flush nft chain {table} {chain}")
    body = nfgen(family) + text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain)
    yield Message(_DELCHAIN, 0, body, f"delete nft chain {table} {chain}")
