"""What a person writes as the destination of packets."""

from __future__ import annotations

import pytest

from ctl.target import Target, parse_target
from daemon.options import Unusable

PROTOCOLS = ("tcp", "udp", "icmp", "sctp")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("web", Target("web", 0, "")),
        ("udp", Target("udp", 0, "")),
        ("shop/cart", Target("shop/cart", 0, "")),
        ("shop/cart:80", Target("shop/cart", 80, "")),
        ("shop/cart:53/udp", Target("shop/cart", 53, "udp")),
        ("10.0.0.1", Target("10.0.0.1", 0, "")),
        ("10.0.0.1:80", Target("10.0.0.1", 80, "")),
        ("192.0.2.1:9/sctp", Target("192.0.2.1", 9, "sctp")),
        ("fd00::1", Target("fd00::1", 0, "")),
        ("fd00::1/icmp", Target("fd00::1", 0, "icmp")),
        ("[fd00::1]", Target("fd00::1", 0, "")),
        ("[fd00::1]/icmp", Target("fd00::1", 0, "icmp")),
        ("[fd00::1]/udp", Target("fd00::1", 0, "udp")),
        ("[fd00::1]:80", Target("fd00::1", 80, "")),
        ("[fd00::1]:53/udp", Target("fd00::1", 53, "udp")),
        ("02:00:00:00:00:11", Target("02:00:00:00:00:11", 0, "")),
        ("net:[4026532000]", Target("net:[4026532000]", 0, "")),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert parse_target(text, PROTOCOLS) == target


@pytest.mark.parametrize("text", ["web:0", "web:70000", "web:http"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match=r"is not between 1 and 65535"):
        parse_target(text, PROTOCOLS)
