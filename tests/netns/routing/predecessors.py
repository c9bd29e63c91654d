"""Other network plugins, and what they make of a node, as their sources have it.

flannel-io/flannel (pkg/backend/vxlan, pkg/trafficmngr, Documentation/kube-flannel.yml) with what
its plugin delegates to `bridge`, and kind (images/kindnetd/cmd/kindnetd).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config.schema import Predecessor
from tests.pytest_netns.underlay import DEFAULT, Family

DEBIAN = Path("/usr/lib/cni")
"""Where the executables are that they use."""
PODS: Mapping[Family, str] = {4: "10.244.0.0/16", 6: "fd00:10:244::/48"}
"""They contain the prefixes of all nodes."""


@dataclass(frozen=True)
class Place:
    """A node. addresses and cidrs: its own and its pods', by their families."""

    number: int
    addresses: Mapping[Family, str]
    cidrs: Mapping[Family, str]


@dataclass(frozen=True)
class Plugin:
    """Another plugin.

    network: the name in its configuration. file: the configuration's name. state: where host-local
    has its reservations. mode: of podwire's attachments that fit its own. families: that it serves.
    conf: its first entry. lay: the commands that its daemon's work on a node comes to.
    """

    name: Predecessor
    network: str
    file: str
    state: str
    mode: str
    families: tuple[Family, ...]
    conf: Callable[[Sequence[str]], dict[str, Any]]
    lay: Callable[[Place, Sequence[Place]], Iterator[str]]

    def cidrs(self, place: Place) -> list[str]:
        """The prefixes of a node that it uses."""
        return [cidr for family, cidr in place.cidrs.items() if family in self.families]

    def conflist(self, place: Place) -> dict[str, Any]:
        """Its configuration for a node."""
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        plugins = [self.conf(self.cidrs(place)), portmap]
        return {"cniVersion": "0.3.1", "name": self.network, "plugins": plugins}

    def commands(self, place: Place, peers: Sequence[Place]) -> Iterator[str]:
        """What makes a node its own, with peers."""
        yield "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        yield from self.lay(place, peers)


def _flannel_conf(cidrs: Sequence[str]) -> dict[str, Any]:
    bridge = {"hairpinMode": True, "isDefaultGateway": True, "isGateway": True}
    ranges = [[{"subnet": cidr}] for cidr in cidrs]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": PODS[4]}]}
    return {"type": "bridge", "ipMasq": False, **bridge, "mtu": 1450, "ipam": ipam}


def _lay_flannel(me: Place, peers: Sequence[Place]) -> Iterator[str]:
    """flannel.1, with what flanneld enters for peers, and its masquerade."""
    own = me.cidrs[4]
    yield (
        f"ip link add flannel.1 address {_mac(me)} mtu 1450 type vxlan id 1 dev eth0"
        f" local {me.addresses[4]} dstport 8472 nolearning"
    )
    yield f"ip address add {_first(own)}/32 dev flannel.1"
    yield "ip link set flannel.1 up"
    for peer in peers:
        there = _first(peer.cidrs[4])
        yield f"ip neighbour add {there} lladdr {_mac(peer)} dev flannel.1"
        yield f"bridge fdb append {_mac(peer)} dev flannel.1 dst {peer.addresses[4]}"
        yield f"ip route add {peer.cidrs[4]} via {there} dev flannel.1 onlink"
    for rule in (
        "-N FLANNEL-POSTRTG",
        "-A POSTROUTING -j FLANNEL-POSTRTG",
        f"-A FLANNEL-POSTRTG -s {own} -d {PODS[4]} -j RETURN",
        f"-A FLANNEL-POSTRTG -s {PODS[4]} -d {own} -j RETURN",
        f"-A FLANNEL-POSTRTG -s {PODS[4]} ! -d 224.0.0.0/4 -j MASQUERADE",
    ):
        yield f"iptables -t nat {rule}"


def _mac(place: Place) -> str:
    """The address of its flannel.1."""
    return f"0a:00:00:00:00:{place.number:02x}"


def _first(cidr: str) -> str:
    return cidr.partition("/")[0]


def _kindnet_conf(cidrs: Sequence[str]) -> dict[str, Any]:
    ranges = [[{"subnet": cidr}] for cidr in cidrs]
    routes = [{"dst": DEFAULT[6 if ":" in cidr else 4]} for cidr in cidrs]
    ipam = {"type": "host-local", "dataDir": KINDNET.state, "routes": routes, "ranges": ranges}
    return {"type": "ptp", "ipMasq": False, "ipam": ipam, "mtu": 1500}


def _lay_kindnet(me: Place, peers: Sequence[Place]) -> Iterator[str]:
    """Its routes by the peers' own addresses, and its masquerade."""
    for family in me.cidrs:
        for peer in peers:
            yield f"ip -{family} route add {peer.cidrs[family]} via {peer.addresses[family]}"
        for rule in (
            "-N KIND-MASQ-AGENT",
            f"-A KIND-MASQ-AGENT -d {PODS[family]} -j RETURN",
            "-A KIND-MASQ-AGENT -j MASQUERADE",
            "-A POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT",
        ):
            yield f"{'iptables' if family == 4 else 'ip6tables'} -t nat {rule}"


FLANNEL = Plugin(
    "flannel", "cbr0", "10-flannel.conflist", "/var/lib/cni/networks", "bridge", (4,),
    _flannel_conf, _lay_flannel,
)  # fmt: skip
KINDNET = Plugin(
    "kindnet", "kindnet", "10-kindnet.conflist", "/run/cni-ipam-state", "ptp", (4, 6),
    _kindnet_conf, _lay_kindnet,
)  # fmt: skip
