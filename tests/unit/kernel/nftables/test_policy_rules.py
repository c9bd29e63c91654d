"""What filters let through, as the daemon decides it."""

from __future__ import annotations

import time
from ipaddress import ip_address

from kernel.nftables.policy_rules import (
    Box,
    Ends,
    Filter,
    PolicyRules,
    Span,
    ends_of,
    narrowed,
)

DNS = Span(17, 53, 53)
PEERS = [ip_address(0x0AF40000 + number) for number in range(0, 40_000, 2)]


def test_thousands_of_connections_are_judged_by_thousands_of_peers_soon() -> None:
    found = Filter("ingress", boxes=frozenset(Box(ends_of(peer), DNS) for peer in PEERS))
    began = time.thread_time()
    assert all(found.lists(peer, 17, 53) for peer in PEERS)
    assert not any(found.lists(peer + 1, 17, 53) for peer in PEERS)
    assert time.thread_time() - began < 10


def test_a_range_has_its_first_and_last_address_of_its_version() -> None:
    low, high = Ends(4, 1, 2), Ends(6, 1, 3)
    found = Filter("egress", ranges=frozenset({low, high}), boxes=frozenset({Box(high, DNS)}))
    listed = {
        (version, number)
        for version, make in ((4, "0.0.0.{}"), (6, "::{}"))
        for number in range(6)
        if found.lists(ip_address(make.format(number)), 6, 80)
    }
    assert listed == {(4, 1), (4, 2), (6, 1), (6, 2), (6, 3)}


def rules(name: str, *peers: int, monitors: bool = False) -> PolicyRules:
    """One pod, limited to some peers by a filter of that name."""
    hosts = frozenset(PEERS[number] for number in peers)
    made = Filter("ingress", hosts=hosts, monitors=monitors)
    return PolicyRules(frozenset({"pw1"}), {"pw1": name}, {}, {name: made}, closes=True)


def test_connections_are_looked_at_of_pods_with_less_or_with_another_filter() -> None:
    old, limited = rules("a", 1, 2), {"pw1"}
    assert narrowed(old, rules("a", 1, 2)) == set()
    assert narrowed(old, rules("a", 1, 2, 3)) == set()
    assert narrowed(old, rules("a", 1, monitors=True)) == set()
    assert narrowed(old, rules("a", 1)) == limited
    assert narrowed(rules("a", 1, monitors=True), old) == limited
    assert narrowed(PolicyRules(), old) == limited
    # A packet may have found its chain while that had no rules yet.
    assert narrowed(old, rules("b", 1, 2, 3)) == limited
