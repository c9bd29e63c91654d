"""What the kernel has in the sets of the table `inet podwire-policy`, as `policy` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from kernel.errors import KernelError
from kernel.nftables.policy import TABLE, policy_is_present, render
from kernel.nftables.policy_rules import PolicyRules
from kernel.programs import require_program, run_program

_PORT_BITS = 16


def members_of(rules: PolicyRules) -> dict[str, frozenset[str]]:
    """The members that sets and maps should have by their names; those without any are left out."""
    found: dict[str, frozenset[str]] = {}
    for line in render(rules).splitlines():
        head, is_element, listed = line.removesuffix(" }").partition(" { ")
        if is_element and head.startswith("add element "):
            name, members = head.split()[-1], frozenset(listed.replace('"', "").split(", "))
            found[name] = found.get(name, frozenset()) | members
    return found


def read_members() -> dict[str, frozenset[str]] | None:
    """The members of each set and map by its name; None where there is no such table.

    Connections that were cut are left out. Raises KernelError, MissingTool.
    """
    program = require_program("nft", "install the package nftables on this node")
    argv = [program, "-j", "list", "table", "inet", TABLE]
    try:
        listed = run_program(argv, ("list", f"nft table inet {TABLE}"))
    except KernelError:
        if policy_is_present():
            raise
        return None
    return dict(parse_members(json.loads(listed)["nftables"]))


def parse_members(items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Sets and maps of a listing in JSON (libnftables-json(5)), but those whose members end."""
    for item in items:
        found = item.get("set") or item.get("map")
        if found and "timeout" not in found.get("flags", ()):
            yield found["name"], frozenset(map(_member, found.get("elem", ())))


def _member(element: Any) -> str:
    if isinstance(element, list):  # of a map: the key, and the verdict
        key, verdict = element
        target = next(iter(verdict.values()))["target"]
        return f"{_value(key)} : jump {target}"
    return _value(element)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        kind, inner = next(iter(value.items()))
        if kind == "elem":
            return _value(inner["val"])
        if kind == "concat":
            return " . ".join(map(_value, inner))
        if kind == "range":
            first, last = map(_value, inner)
            return first if first == last else f"{first}-{last}"
        if kind == "prefix":
            return _prefix(inner["addr"], inner["len"])
    return str(value)


def _prefix(address: Any, length: int) -> str:
    if isinstance(address, int):  # ports
        last = address | ((1 << (_PORT_BITS - length)) - 1)
        return f"{address}-{last}" if last > address else str(address)
    network = ip_network(f"{address}/{length}")
    if network.num_addresses == 1:
        return str(address)
    return f"{network.network_address}-{network.broadcast_address}"
