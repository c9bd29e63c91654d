"""Chains of legacy iptables (x_tables), which no netlink reaches: by its own programs.

They are started only where the calling thread's namespace has the table.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from kernel.errors import KernelError, MissingTool
from kernel.programs import find_program

TABLE = "nat"
_FAMILIES = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}
_ATTEMPTS = 3
_TIMEOUT = 60  # seconds, of one program
_LOCK_WAIT = "10"  # seconds that it waits for /run/xtables.lock
_OUTPUT_MAX = 64 << 20  # bytes


def remove_chains(chains: Mapping[str, str]) -> int:
    """Remove chains of the table nat with the rules that lead to them; how many rules and chains.

    chains: by name the comment that rules leading there have, if they have any; a chain with
    another comment stays. Other rules keep their counters. Raises KernelError, MissingTool.
    """
    return sum(_remove(program, chains) for program in _programs())


def read_comments() -> list[tuple[str, str]]:
    """(comment, chain that the rule leads to) of the rules that lead to chains of the table nat."""
    found = []
    for program in _programs():
        rules = map(_words, _rule_lines(_save(program)))
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


def _remove(program: str, chains: Mapping[str, str]) -> int:
    for attempt in range(_ATTEMPTS):
        lines = plan_removal(_save(program), chains)
        if not lines:
            return 0
        script = "\n".join([f"*{TABLE}", *lines, "COMMIT", ""])
        try:
            _run(f"{program}-restore", ["--noflush", "--wait", _LOCK_WAIT], script)
        except KernelError:
            # All or nothing: another program has changed one of these rules meanwhile.
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return len(lines)
    return 0


def _programs() -> list[str]:
    """Those whose table nat the namespace has. Reading it would make it otherwise."""
    return [program for program, names in _FAMILIES.items() if TABLE in _table_names(names)]


def _table_names(file: str) -> list[str]:
    try:
        return Path("/proc/thread-self/net", file).read_text().split()
    except OSError:
        return []


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


def _save(program: str) -> str:
    return _run(f"{program}-save", ["-t", TABLE])


def _run(name: str, options: list[str], script: str = "") -> str:
    import subprocess

    program = find_program(name)
    if program is None:
        hint = "rules of legacy iptables stay until this program is on the node"
        raise MissingTool("run", name, 0, hint)
    argv = [program, *options]
    try:
        done = subprocess.run(
            argv, input=script.encode(), capture_output=True, timeout=_TIMEOUT, env={}, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise KernelError("run", name, 0, f"it took more than {_TIMEOUT} s") from error
    if done.returncode or len(done.stdout) > _OUTPUT_MAX:
        text = os.fsdecode(done.stderr).strip().splitlines()
        raise KernelError("run", name, 0, "; ".join(text[:3]))
    return done.stdout.decode(errors="surrogateescape")
