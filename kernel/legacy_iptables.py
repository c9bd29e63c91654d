"""Chains of legacy iptables (x_tables), which no netlink reaches: by its own programs.

They are started only where the calling thread's namespace has the table.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

from kernel.iptables import PROGRAMS, Flavour, has_legacy_table, read_table, update_table
from kernel.programs import require_program

TABLE = "nat"


def remove_chains(chains: Mapping[str, str]) -> int:
    """Remove chains of the table nat with the rules that lead to them; how many rules and chains.

    chains: by name the comment that rules leading there have, if they have any; a chain with
    another comment stays. Other rules keep their counters. Raises KernelError, MissingTool.
    """
    plan = partial(plan_removal, chains=chains)
    return sum(update_table(flavour, TABLE, plan) for flavour in _flavours())


def read_comments() -> list[tuple[str, str]]:
    """(comment, chain that the rule leads to) of the rules that lead to chains of the table nat."""
    found = []
    for flavour in _flavours():
        rules = map(_words, _rule_lines(read_table(flavour, TABLE)))
        found += [(_after(words, "--comment"), _target(words)) for words in rules]
    return found


def plan_removal(saved: str, chains: Mapping[str, str]) -> list[str]:
    """Lines for iptables-restore that remove chains, by the output of iptables-save. Pure."""
    present = [line[1:].split(" ")[0] for line in saved.splitlines() if line.startswith(":")]
    rules = [(line, _words(line)) for line in _rule_lines(saved)]
    lines: list[str] = []
    for chain in (name for name in present if name in chains):
        leading = [line for line, words in rules if _target(words) == chain]
        mine = (words for _line, words in rules if chain in (_target(words), words[1]))
        if {_after(words, "--comment") for words in mine} <= {"", chains[chain]}:
            lines += [f"-D{line.removeprefix('-A')}" for line in leading]
            lines += [f"-F {chain}", f"-X {chain}"]
    return lines


def _flavours() -> Iterator[Flavour]:
    """The programs for each family whose table nat is there. Reading one would make it."""
    hint = "rules of legacy iptables stay until this program is on the node"
    for version, name in PROGRAMS.items():
        if has_legacy_table(version, TABLE):
            programs = (f"{name}-legacy-{what}" for what in ("save", "restore"))
            yield Flavour(*(require_program(program, hint) for program in programs))


def _rule_lines(saved: str) -> Iterator[str]:
    return (line for line in saved.splitlines() if line.startswith("-A "))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return ["-A", ""]


def _after(words: list[str], option: str) -> str:
    return next((b for a, b in pairwise(words) if a == option), "")


def _target(words: list[str]) -> str:
    return _after(words, "-j") or _after(words, "-g")
