"""Filters of a capture."""

from ipaddress import ip_address

import pytest

from ctl.capture.expression import parse_filter
from daemon.options import Unusable
from kernel.packets import Packet

A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
DNS = Packet("udp", A, B, 17, (4000, 53))
CARRIED = Packet("udp", ip_address("192.0.2.1"), ip_address("192.0.2.2"), 17, (1, 8472), inner=DNS)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("udp", True),
        ("tcp", False),
        ("not tcp", True),
        ("port 53", True),
        ("port 53 and host 10.0.0.2", True),
        ("port 53 and host 10.0.0.3", False),
        ("tcp and port 53 or host 10.0.0.0/24", True),
        ("host 10.0.0.1 or tcp and port 80", True),
        ("not host 10.0.0.1", False),
    ],
)
def test_filter(text: str, fits: bool) -> None:
    assert parse_filter(text.split())(DNS) is fits
    assert parse_filter([text])(DNS) is fits


def test_what_is_carried_counts() -> None:
    assert parse_filter(["port", "53"])(CARRIED)
    assert parse_filter(["host", "192.0.2.1"])(CARRIED)
    # Both terms must fit one of them.
    assert not parse_filter(["host", "192.0.2.1", "and", "port", "53"])(CARRIED)


NONSENSE = ("host", "host x", "port 0", "port 70000", "port x", "and", "udp or", "not", "udp tcp")


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_named(text: str) -> None:
    with pytest.raises(Unusable):
        parse_filter(text.split())
