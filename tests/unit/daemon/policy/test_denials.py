"""Denied connections in journal and log: by name, once a minute, bounded."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from daemon.journal import MIN_BYTES, Journal, read
from daemon.log import Log
from daemon.policy.denials import AGAIN, AT_ONCE, GAP, Denials
from daemon.policy.model import Facts, PodFacts, Policy
from kernel.packet_log import LoggedPacket

WEB = PodFacts("app", "web", {}, (ip_address("10.0.0.2"),))
DENY = Policy("app", "deny", rules={"ingress": ()})
FACTS = Facts({DENY.key: DENY}, {}, {WEB.key: WEB})


def packet(number: int = 0, prefix: str = "denied ingress") -> LoggedPacket:
    source = ip_address("192.0.2.0") + number
    return LoggedPacket(prefix, source, WEB.addresses[0], 6, 80)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_connection_is_reported_once_a_minute_with_names_and_number(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "journal"
    denials = Denials(Journal(path, MIN_BYTES), Log("error"), clock)
    denials.note([packet(), packet()])
    denials.take(FACTS)
    [first] = read(path)
    assert first.object == "connection 192.0.2.0 -> app/web (10.0.0.2) tcp/80"
    assert first.cause == "ingress: no rule of app/deny allows it, 2 packets"
    clock.now += GAP
    denials.note([packet()])
    denials.take(FACTS)
    assert len([*read(path)]) == 1
    clock.now += AGAIN
    denials.take(FACTS)
    assert len([*read(path)]) == 2


def test_a_flood_is_bounded(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "journal"
    denials = Denials(Journal(path, MIN_BYTES), Log("error"), clock)
    denials.note(packet(number) for number in range(200))
    denials.take(FACTS)
    found = [*read(path)]
    assert len(found) == AT_ONCE + 1
    assert f"{200 - AT_ONCE} more" in found[-1].object


def test_what_only_reports_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    denials = Denials(Journal(path, MIN_BYTES), Log("error"), Clock())
    denials.note([packet(prefix="monitored ingress")])
    denials.take(FACTS)
    [found] = read(path)
    assert found.cause.endswith("let through, as they only report")
