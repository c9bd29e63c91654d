"""Nodes whose daemons probe each other often."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, cluster, eventually

__all__ = ["cluster"]

FAST = {"interval": 1, "budget": 50}
PORT = 8473

Grow = Callable[..., list[Member]]


def health(member: Member) -> dict[str, Any]:
    """What the node's status says of its peers."""
    return dict(member.status().get("health") or {})


def trouble(member: Member, peer: str) -> dict[str, Any]:
    """What it says of one in trouble; empty where it is none."""
    found = [t for t in health(member).get("troubles", []) if t["node"] == peer]
    return dict(found[0]) if found else {}


def is_well(member: Member, peers: int) -> object:
    """True where all its peers are established."""
    found = health(member)
    return found.get("established") == peers or (found, member.log)


def is_found(member: Member, peer: Member, state: str, reason: str, *words: str) -> object:
    """True where it says so of a peer, in these words among others."""
    found = trouble(member, peer.name)
    said = (found.get("state"), found.get("reason")) == (state, reason)
    return (said and all(word in found["detail"] for word in words)) or (found, member.log)


def expect(member: Member, peer: Member, reason: str, *words: str) -> None:
    """Wait until the peer has failed for that reason."""
    eventually(partial(is_found, member, peer, "failed", reason, *words))


def expect_well(members: list[Member]) -> None:
    """Wait until everybody reaches everybody."""
    for member in members:
        eventually(partial(is_well, member, len(members) - 1))


@pytest.fixture
def grow(cluster: Cluster) -> Grow:
    """Makes that many nodes that reach each other."""

    def make(count: int = 2, **settings: object) -> list[Member]:
        wanted: dict[str, Any] = {"health": FAST, **settings}
        members = [cluster.join(**wanted) for _ in range(count)]
        expect_well(members)
        return members

    return make


def nft(member: Member, *rules: str) -> None:
    """Add rules to a table of the test's own on the node; the first word names the hook."""
    lines = ["table inet test {"]
    for rule in rules:
        hook, _, rest = rule.partition(" ")
        lines.append(f"chain {hook} {{ type filter hook {hook} priority 0; {rest}; }}")
    member.node.run(["nft", "-f", "-"], stdin="\n".join([*lines, "}"]))


def allow_again(member: Member) -> None:
    """Remove the test's rules."""
    member.node.run(["nft", "delete", "table", "inet", "test"])


def uplink(member: Member) -> str:
    """The underlay's end of the node's uplink."""
    return f"port{member.number}"
