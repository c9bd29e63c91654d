"""What a pod's lookups are, by the frames on its link."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.dns.codec import Query, encode
from ctl.dns.watch import PATIENCE, Tally
from ctl.dns.watched import find_findings, totals

POD, SERVER = "10.0.0.2", "10.96.0.10"


def frame(source: str, target: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """An Ethernet frame with a UDP datagram."""
    ends = ip_address(source).packed + ip_address(target).packed
    udp = struct.pack("!4H", *ports, 8 + len(payload), 0) + payload
    if len(ends) == 8:
        head = b"\x08\x00" + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    else:
        head = b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(udp), 17, 64)
    return bytes(12) + head + ends + udp


def query(number: int, name: str = "a.example", port: int = 4000) -> bytes:
    return frame(POD, SERVER, (port, 53), encode(Query(number, name, "A")))


def answer(number: int, name: str = "a.example", code: int = 0, port: int = 4000) -> bytes:
    body = bytearray(encode(Query(number, name, "A")))
    body[2:4] = (0x8180 | code).to_bytes(2)
    return frame(SERVER, POD, (53, port), bytes(body))


@pytest.mark.parametrize(("one", "two"), [(POD, SERVER), ("fd00::2", "fd00::a")])
def test_a_datagram_of_either_family(one: str, two: str) -> None:
    tally, asked = Tally(), frame(one, two, (4000, 53), encode(Query(1, "a.example", "A")))
    tally.take(asked[:40], 1.0, to_pod=False)
    assert tally.counts == []
    tally.take(asked, 1.0, to_pod=False)
    assert [(count.name, count.queries) for count in tally.counts] == [("a.example", 1)]


def test_answers_losses_and_repetitions() -> None:
    tally = Tally()
    tally.take(query(1), 10.0, to_pod=False)
    tally.take(answer(1), 10.5, to_pod=True)
    tally.take(query(2, "b.example"), 10.6, to_pod=False)
    tally.take(query(2, "b.example"), 11.6, to_pod=False)
    tally.take(answer(2, "b.example", 3), 11.7, to_pod=True)
    tally.take(query(3), 12.0, to_pod=False)
    tally.take(query(4), 20.0, to_pod=False)
    tally.take(answer(9), 20.0, to_pod=True)  # of no query
    tally.take(query(5), 20.0, to_pod=True)  # no query of this pod's
    tally.end(20.0 + PATIENCE / 2)
    a, b = tally.counts
    assert (a.name, a.queries, a.answers, a.lost, a.slowest) == ("a.example", 2, 1, 1, 0.5)
    assert (b.queries, b.answers, b.lost, b.repeated) == (2, 1, 1, 1)
    assert totals(tally.counts)["inVain"] == 1
    assert tally.peak == 2
    assert "2 of 4 queries had no answer" in next(find_findings(tally, 0))


@given(st.binary(max_size=120), st.booleans(), st.integers(0, 60))
@settings(max_examples=200)
def test_any_frame_is_counted_or_passed_over(data: bytes, to_pod: bool, keep: int) -> None:
    tally = Tally()
    for each in (data, query(1)[:keep] + data, frame(SERVER, POD, (53, 9), data)):
        tally.take(each, 1.0, to_pod=to_pod)
    tally.end(9.0)
    assert all(count.queries > 0 for count in tally.counts)
