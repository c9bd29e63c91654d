"""An overlay of two nodes made with iproute2: what podwire's must be as good as."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.routing.fleet import DEVICE, Listed
from tests.bench.world import Host, Pod

_MTU = 1450
_GATEWAY = "169.254.1.1"
MASQUERADE = """
table ip by_hand {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.0.0.0/16 ip daddr != 10.0.0.0/16 masquerade
    }
}
"""
"""What pods send beyond the cluster gets the node's address."""
HOOKS = """
table inet by_hand {
    chain prerouting { type filter hook prerouting priority raw; }
    chain input { type filter hook input priority raw; }
    chain forward { type filter hook forward priority raw; }
}
"""
"""What filters of pods' sources, of VXLAN's senders and of pods' packets to peers cost at least."""


def join(hosts: Sequence[Host], nodes: Sequence[Listed], pods: Sequence[Pod]) -> list[str]:
    """Give each host a VXLAN device, the way to the others, and a pod; the pods' addresses."""
    for host, node in zip(hosts, nodes, strict=True):
        _make_device(host, node)
        for peer in nodes:
            if peer is not node:
                _add_peer(host, peer)
    return [_attach(*three) for three in zip(hosts, nodes, pods, strict=True)]


def _make_device(host: Host, node: Listed) -> None:
    mac = node.entries[0].mac
    host.node.ns.ip_batch(
        f"link add {DEVICE} address {mac} mtu {_MTU} type vxlan"
        f" id 1 dev eth0 local {node.address} dstport 8472 nolearning\n"
        f"address add {node.prefix.network_address}/32 dev {DEVICE}\n"
        f"link set {DEVICE} up\n"
    )
    host.node.ns.sysctl("ipv4/ip_forward", "1")


def _add_peer(host: Host, peer: Listed) -> None:
    fdb, neighbour, route = peer.entries
    host.node.ns.ip_batch(
        f"neigh add {neighbour.address} lladdr {fdb.mac} dev {DEVICE} nud permanent\n"
        f"route add {route.dst} via {route.via} dev {DEVICE} onlink\n"
    )
    host.node.ns.run(
        ["bridge", "fdb", "add", fdb.mac, "dev", DEVICE, "dst", str(fdb.dst), "self", "permanent"]
    )


def _attach(host: Host, node: Listed, pod: Pod) -> str:
    """A routed pair, as podwire's mode ptp makes it."""
    address = str(node.prefix[2])
    host.node.ns.ip_batch(
        f"link add veth0 mtu {_MTU} type veth peer name eth0 mtu {_MTU} netns {pod.name}\n"
        f"address add {_GATEWAY}/32 dev veth0\n"
        "link set veth0 up\n"
        f"route add {address}/32 dev veth0\n"
    )
    pod.ip_batch(
        "link set lo up\n"
        f"address add {address}/32 dev eth0\n"
        "link set eth0 up\n"
        f"route add {_GATEWAY} dev eth0\n"
        f"route add default via {_GATEWAY} dev eth0\n"
    )
    return address


def load(hosts: Sequence[Host], rules: str) -> None:
    """Give each host these rules, in nft's language."""
    for host in hosts:
        host.node.run(["nft", "-f", "-"], stdin=rules)
