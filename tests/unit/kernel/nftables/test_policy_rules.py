"""What filters let through, as the daemon decides it."""

from __future__ import annotations

import time
from ipaddress import ip_address

from kernel.nftables.policy_rules import Box, Ends, Filter, Span, ends_of

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
