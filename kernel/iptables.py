"""Rules by which iptables' filters accept what is forwarded to and from pods' addresses.

An accepting rule of one base chain does not keep another one from dropping (nft(8), VERDICT
STATEMENTS), so these rules stand in the filters that drop: in the table `filter` of iptables, as
the reference plugin `firewall` has them. They are read and written by iptables' own programs, for
iptables-nft takes a table that holds anything else for broken, and iptables-legacy has no other
interface. Each script is one transaction; what another writer changed meanwhile makes it fail, and
it is computed again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from kernel.errors import KernelError, MissingTool
from kernel.model import IPAddress
from kernel.nftables.foreign import has_chain
from kernel.nftables.table import open_nft
from kernel.programs import find_program, require_program, run_program

CHAIN = "CNI-FORWARD"
DEFAULT_ADMIN_CHAIN = "CNI-ADMIN"
_TO_CHAIN = f'-m comment --comment "CNI firewall plugin rules" -j {CHAIN}'
_TO_ADMIN = '-m comment --comment "CNI firewall plugin admin overrides" -j '
_ATTEMPTS, _PATIENCE = 8, 30.0
"""How often a script is tried, and until how many seconds have passed."""
_LOCK_WAIT = "10"  # seconds, for /run/xtables.lock
_TABLE = "filter"
PROGRAMS = {4: "iptables", 6: "ip6tables"}
_FAMILIES = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_LEGACY_TABLES = {4: "ip_tables_names", 6: "ip6_tables_names"}
# XT_EXTENSION_MAXNAMELEN is 29 (linux/netfilter/x_tables.h); no blanks or quotes in a script.
_NAME = re.compile(r"[A-Za-z0-9_+.:/][A-Za-z0-9_+.:/-]{0,27}\Z")
_NOT_CHAINS = frozenset({"INPUT", "FORWARD", "OUTPUT", "ACCEPT", "DROP", "QUEUE", "RETURN", CHAIN})


def is_chain_name(name: str) -> bool:
    """Whether a chain of the administrator's can have this name."""
    return _NAME.match(name) is not None and name not in _NOT_CHAINS


@dataclass(frozen=True, slots=True)
class Filter:
    """A table `filter`: its chains, and its rules as iptables-save writes them, in order."""

    chains: frozenset[str] = frozenset()
    rules: tuple[str, ...] = ()


class Flavour(NamedTuple):
    """The programs of iptables-nft or iptables-legacy for one address family."""

    save: str
    restore: str


def accept(addresses: Collection[IPAddress], admin_chain: str) -> None:
    """Accept what these addresses send, and what is sent back to them.

    Where the node has no iptables, and no filter of it, there is nothing to do. Raises KernelError,
    MissingTool.
    """
    for version, mine in _by_version(addresses):
        for flavour in _flavours(version):
            _update(flavour, partial(script_to_accept, mine, admin_chain))


def withdraw(addresses: Collection[IPAddress], admin_chain: str) -> None:
    """Remove these addresses' rules, and with the last address the chains. Raises KernelError."""
    for version, mine in _by_version(addresses):
        with suppress(MissingTool):  # without its program nothing can be removed
            for flavour in _flavours(version):
                # Once more: of two that go at the same time neither has seen itself as the last.
                for _ in range(_ATTEMPTS):
                    if not _update(flavour, partial(script_to_withdraw, mine, admin_chain)):
                        break


def not_accepted(addresses: Collection[IPAddress], admin_chain: str) -> list[IPAddress]:
    """Those of the addresses whose rules are not all there. Raises KernelError, MissingTool."""
    missing: list[IPAddress] = []
    for version, mine in _by_version(addresses):
        filters = [parse_filter(read_table(f, _TABLE)) for f in _flavours(version)]
        missing += [a for a in mine if any(script_to_accept([a], admin_chain, f) for f in filters)]
    return missing


def _by_version(addresses: Iterable[IPAddress]) -> Iterator[tuple[int, list[IPAddress]]]:
    known = list(addresses)
    for version in PROGRAMS:
        mine = [address for address in known if address.version == version]
        if mine:
            yield version, mine


def _flavours(version: int) -> Iterator[Flavour]:
    """The node's own iptables, and the other flavour where it has a filter already.

    The own one also while it has none: the filter of a program that starts later finds the rules.
    Raises MissingTool where a filter is there, and its program is not.
    """
    name = PROGRAMS[version]
    own = find_program(f"{name}-restore")
    own_kind = _kind_of(own) if own else ""
    if own:
        yield Flavour(require_program(f"{name}-save", "install iptables"), own)
    for kind in ("nft", "legacy"):
        if kind != own_kind and _has_filter(kind, version):
            hint = f"the table filter of iptables-{kind} is there: install the package iptables"
            programs = (f"{name}-{kind}-{what}" for what in ("save", "restore"))
            yield Flavour(*(require_program(program, hint) for program in programs))


def _kind_of(program: str) -> str:
    """The flavour that a program is, through the links of Debian's alternatives."""
    return "nft" if "nft" in os.path.basename(os.path.realpath(program)) else "legacy"


def _has_filter(kind: str, version: int) -> bool:
    if kind == "legacy":
        return has_legacy_table(version, _TABLE)
    with open_nft() as nl:
        return has_chain(nl, _FAMILIES[version], "filter", "FORWARD")


def update_table(flavour: Flavour, table: str, script_for: Callable[[str], list[str]]) -> int:
    """Run the script for a table as it is saved now; how many lines it had.

    Raises KernelError where it is refused time and again.
    """
    until = time.monotonic() + _PATIENCE
    for attempt in range(1, _ATTEMPTS + 1):
        lines = script_for(read_table(flavour, table))
        if not lines:
            return 0
        script = "\n".join([f"*{table}", *lines, "COMMIT", ""])
        try:
            argv = [flavour.restore, "--noflush", "--wait", _LOCK_WAIT]
            run_program(argv, ("change", f"iptables' table {table}"), script)
        except KernelError:
            # All or nothing: another program has changed one of these rules meanwhile.
            if attempt == _ATTEMPTS or time.monotonic() > until:
                raise
        else:
            return len(lines)
    return 0


def read_table(flavour: Flavour, table: str) -> str:
    """A table as iptables-save writes it, which creates one that is missing. Raises KernelError."""
    return run_program([flavour.save, "-t", table], ("read", f"iptables' table {table}"))


def has_legacy_table(version: int, table: str) -> bool:
    """Whether the calling thread's namespace has a table of iptables-legacy."""
    try:
        with open(f"/proc/thread-self/net/{_LEGACY_TABLES[version]}") as names:
            return table in names.read().split()
    except OSError:
        return False


def _update(flavour: Flavour, script_for: Callable[[Filter], list[str]]) -> bool:
    """Run the script for the filter as it is; whether there was anything to do."""
    return update_table(flavour, _TABLE, lambda saved: script_for(parse_filter(saved))) > 0


def parse_filter(saved: str) -> Filter:
    """What `iptables-save -t filter` has written."""
    lines = saved.splitlines()
    chains = frozenset(line[1:].split(" ")[0] for line in lines if line.startswith(":"))
    return Filter(chains, tuple(line for line in lines if line.startswith("-A ")))


def _rules_of(address: IPAddress) -> tuple[str, str]:
    place = f"{address}/{address.max_prefixlen}"
    return (
        f"-d {place} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-s {place} -j ACCEPT",
    )


def script_to_accept(addresses: Iterable[IPAddress], admin_chain: str, found: Filter) -> list[str]:
    """What is missing, as lines of a script for iptables-restore."""
    to_admin = _TO_ADMIN + admin_chain
    rules = [rule for address in addresses for rule in _rules_of(address)]
    lines = [f"-N {chain}" for chain in (CHAIN, admin_chain) if chain not in found.chains]
    if f"-A FORWARD {_TO_CHAIN}" not in found.rules:
        lines.append(f"-I FORWARD 1 {_TO_CHAIN}")
    if f"-A {CHAIN} {to_admin}" not in found.rules:
        lines.append(f"-I {CHAIN} 1 {to_admin}")
    present = frozenset(found.rules)
    return lines + [f"-A {CHAIN} {r}" for r in rules if f"-A {CHAIN} {r}" not in present]


def script_to_withdraw(
    addresses: Iterable[IPAddress], admin_chain: str, found: Filter
) -> list[str]:
    """What is there of these addresses' rules, as lines that remove it.

    Chains that have no address any more go, too; the administrator's where it is empty.
    """
    mine = {f"-A {CHAIN} {rule}" for address in addresses for rule in _rules_of(address)}
    removed = [rule for rule in found.rules if rule in mine]
    rest = [rule for rule in found.rules if rule not in mine]
    frame = [rule for rule in rest if rule == f"-A FORWARD {_TO_CHAIN}" or _is_to_admin(rule)]
    others = [rule for rule in rest if rule not in frame]
    if CHAIN not in found.chains or _is_used(CHAIN, others):
        return _deletions(removed)
    admins = {rule.split(" ")[-1] for rule in frame if _is_to_admin(rule)} | {admin_chain}
    unused = [name for name in sorted(admins & found.chains) if not _is_used(name, others)]
    # A chain that got a rule meanwhile is not removed, and then nothing is.
    return [*_deletions([*removed, *frame]), *(f"-X {name}" for name in (CHAIN, *unused))]


def _is_to_admin(rule: str) -> bool:
    return rule.startswith(f"-A {CHAIN} {_TO_ADMIN}")


def _deletions(rules: Iterable[str]) -> list[str]:
    return [f"-D{rule.removeprefix('-A')}" for rule in rules]


def _is_used(chain: str, rules: Iterable[str]) -> bool:
    return any(
        rule.startswith(f"-A {chain} ") or re.search(rf" -[jg] {re.escape(chain)}( |$)", rule)
        for rule in rules
    )
