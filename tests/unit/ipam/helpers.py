"""What the tests of IPAM share: a clock that is set by hand, short configurations and owners."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ipam.boot import Clock
from ipam.config import IpamConf, parse_ipam
from ipam.ranges import IPAddress
from ipam.store import Owner, Store, open_store

NETWORK = "podnet"
BOOT = "boot-1"


@dataclass
class HandClock:
    """Time moves only when a test moves it."""

    wall: float = 1_800_000_000.0
    uptime: float = 1000.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.wall, lambda: self.uptime)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds


def owner(name: object, network: str = NETWORK) -> Owner:
    return Owner(network, f"container{name}", "eth0")


def conf(
    *range_sets: list[dict[str, str]] | str,
    rest: float = 0,
    requested: str | list[str] = (),  # type: ignore[assignment]
    network: str = NETWORK,
) -> IpamConf:
    """A configuration of range sets; a subnet alone is a set of its own."""
    ranges = [[{"subnet": s}] if isinstance(s, str) else s for s in range_sets]
    ips = [requested] if isinstance(requested, str) else list(requested)
    return parse_ipam(
        network,
        {"ranges": ranges, "restPeriod": rest},
        runtime_config={"ips": ips},
        default_data_dir=Path("/nowhere"),
    )


def ip(text: str) -> IPAddress:
    return ip_address(text)


def open_at(data_dir: Path, clock: HandClock | None = None, boot_id: str = BOOT) -> Store:
    hand = clock or HandClock()
    return open_store(data_dir, boot_id=boot_id, clock=hand.clock)
