"""The networks that are measured, and their configuration for each plugin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pytest_netns.underlay import Family

SUBNETS: dict[Family, str] = {4: "10.128.0.0/16", 6: "fd00:80::/64"}
"""Wide enough for the largest number of allocations; the gateway is the first address."""
GATEWAYS: dict[Family, str] = {4: "10.128.0.1", 6: "fd00:80::1"}
DEFAULT_ROUTES: dict[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}

BRIDGE = "pwbr0"
NAME = "bench"
"""The network's name, in every configuration."""

Conf = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Network:
    """A network to attach pods to."""

    case: str
    mode: str
    families: tuple[Family, ...] = (4,)
    masquerade: bool = False


BRIDGE_PLAIN = Network("bridge", "bridge")
BRIDGE_MASQ = Network("bridge ipMasq", "bridge", masquerade=True)
PTP_PLAIN = Network("ptp", "ptp")
PTP_MASQ = Network("ptp ipMasq", "ptp", masquerade=True)
PTP_DUAL = Network("ptp dual stack", "ptp", (4, 6))
NETWORKS = (BRIDGE_PLAIN, BRIDGE_MASQ, PTP_PLAIN, PTP_MASQ, PTP_DUAL)


def reference_conf(network: Network, data_dir: Path) -> Conf:
    """For the reference plugins with `host-local`, whose files go below data_dir."""
    ipam = {"type": "host-local", "dataDir": str(data_dir), **_ranges(network)}
    return {**_shared(network), "type": network.mode, "ipam": ipam}


def podwire_conf(network: Network) -> Conf:
    """For podwire with its own IPAM; the environment says where its store is."""
    return {
        **_shared(network),
        "type": "podwire",
        "mode": network.mode,
        "ipam": _ranges(network),
    }


def kindnet_conf(network: Network) -> Conf:
    """For cni-kindnet, which is routed only and leaves masquerade to its daemon."""
    ranges = [SUBNETS[family] for family in network.families]
    return {"cniVersion": "0.4.0", "name": NAME, "type": "cni-kindnet", "ranges": ranges}


def _shared(network: Network) -> Conf:
    conf: Conf = {"cniVersion": "1.0.0", "name": NAME, "ipMasq": network.masquerade}
    if network.mode == "bridge":
        conf |= {"bridge": BRIDGE, "isGateway": True}
    return conf


def _ranges(network: Network) -> Conf:
    return {
        "ranges": [[{"subnet": SUBNETS[family]}] for family in network.families],
        "routes": [{"dst": DEFAULT_ROUTES[family]} for family in network.families],
    }
