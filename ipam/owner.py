"""Who holds addresses, and what is held."""

from __future__ import annotations

from dataclasses import dataclass

from ipam.ranges import IPAddress


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Who holds addresses: an interface of a container on a network."""

    network: str
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"container {self.container_id} interface {self.ifname}"


@dataclass(frozen=True, slots=True)
class Allocation:
    """An address that is held; `created_at` is in seconds since 1970."""

    owner: Owner
    address: IPAddress
    created_at: float
    boot_id: str
