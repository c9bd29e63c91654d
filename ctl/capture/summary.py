"""A captured packet in one line, with the names of pods and nodes; pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from kernel.model import IPAddress
from kernel.packets import Packet, describe_flags, describe_icmp


def summarise(packet: Packet, names: Mapping[IPAddress, str]) -> str:
    """What it is, from whom to whom. names: of pods and nodes by address."""
    ends = f"{_name(packet.source, names)} > {_name(packet.to, names)}"
    if packet.inner:
        return f"{ends}: VXLAN {packet.vni}: {summarise(packet.inner, names)}"
    return f"{ends}: {_describe(packet)}"


def _name(address: IPAddress, names: Mapping[IPAddress, str]) -> str:
    return f"{names[address]} ({address})" if address in names else str(address)


def _describe(packet: Packet) -> str:
    ports = "{} > {}".format(*packet.ports) if packet.ports else ""
    if packet.name == "tcp" and packet.ports:
        return f"tcp {ports} [{describe_flags(packet)}] {len(packet.payload)} bytes"
    if packet.ports:
        return f"{packet.name} {ports} {len(packet.payload)} bytes"
    return f"{packet.name} {describe_icmp(packet)}" if packet.kind else packet.name


def render_time(time: int) -> str:
    """The time of day in UTC, from ns since 1970."""
    moment = datetime.fromtimestamp(time // 1_000_000_000, UTC)
    return f"{moment:%H:%M:%S}.{time % 1_000_000_000 // 1000:06d}"
