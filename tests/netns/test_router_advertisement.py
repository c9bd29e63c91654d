"""A node whose IPv6 default route came by router advertisement keeps it when it gets its pods."""

import sys
import time
from pathlib import Path
from typing import Any

from tests.pytest_netns import MakeNamespace, Namespace
from tests.pytest_netns.node import Node

CONF = {
    "cniVersion": "1.0.0",
    "name": "advertised",
    "type": "podwire",
    "mode": "ptp",
    "ipam": {"subnet": "fd77::/64", "routes": [{"dst": "::/0"}]},
}

# A router advertisement (RFC 4861, section 4.2) with a lifetime of half an hour, to all nodes.
ADVERTISE = """
import socket, struct
index = socket.if_nametoindex("adv1")
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
raw.sendto(body, ("ff02::1", 0, 0, index))
"""


def advertised_routes(node: Node) -> list[Any]:
    routes = node.ip("-6 route show default proto ra")
    return [route["dev"] for route in routes]


def advertise_until_heard(router: Namespace, node: Node) -> None:
    for _ in range(50):
        router.run([sys.executable, "-c", ADVERTISE])
        if advertised_routes(node):
            return
        time.sleep(0.1)
    raise AssertionError("the node never took the advertisement")


def test_pods_do_not_cost_the_node_its_advertised_default_route(
    node: Node, pod: Namespace, netns: MakeNamespace, podwire_bin: Path
) -> None:
    router = netns("router")
    node.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])
    node.ns.ip_batch(f"link add adv0 type veth peer name adv1 netns {router.name}")
    node.run(["sysctl", "-qw", "net.ipv6.conf.adv0.accept_ra=1"])
    node.ns.ip_batch("link set adv0 up")
    router.ip_batch(
        "link set adv1 addrgenmode none\nlink set adv1 up\naddr add fe80::1/64 dev adv1 nodad"
    )
    advertise_until_heard(router, node)

    added = node.cni("ADD", podwire_bin / "podwire", CONF, netns=pod.path)
    assert added.code == 0, added
    assert node.run(["sysctl", "-n", "net.ipv6.conf.all.forwarding"]).stdout == "1\n"
    assert advertised_routes(node) == ["adv0"]

    node.run(["ip", "-6", "route", "del", "default", "dev", "adv0"])
    advertise_until_heard(router, node)
