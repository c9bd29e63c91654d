"""The network between nodes, with the outside world at its gateway."""

import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tests.pytest_netns.namespace import Namespace

Family = Literal[4, 6]

FAMILIES: tuple[Family, ...] = (4, 6)

SUBNETS = {
    4: ipaddress.ip_network("192.0.2.0/24"),
    6: ipaddress.ip_network("2001:db8:ffff::/64"),
}
"""Documentation networks (RFC 5737, RFC 3849): no pod network of a test overlaps them."""
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
FLAGS = {4: "", 6: "nodad"}

BRIDGE = "underlay"
_SETTLED_SECONDS = 60.0


class Underlay:
    """A namespace with a bridge that the nodes' uplinks are ports of.

    It has no routes to pod networks: a pod's packet is answered only if it is masqueraded,
    or if the test adds the route. families: of its addresses and of the nodes'.
    """

    def __init__(self, ns: Namespace, families: Sequence[Family] = FAMILIES) -> None:
        self.ns, self._families = ns, families
        self._nodes = 0
        ns.sysctl("ipv6/conf/default/accept_dad", "0")
        ns.ip_batch(
            "link set lo up\n"
            # No spanning tree and no forward delay: a new port forwards at once.
            f"link add {BRIDGE} mtu 65535 type bridge stp_state 0 forward_delay 0\n"
            f"link set {BRIDGE} up\n" + self._add_addresses(BRIDGE, 1)
        )

    def gateway(self, family: Family) -> str:
        """Address of the underlay's own end, the nodes' default gateway."""
        return str(SUBNETS[family][1])

    def attach(self, node: Namespace, mtu: int) -> dict[Family, str]:
        """Give a namespace its uplink `eth0`; the addresses that it got, by family."""
        self._nodes += 1
        number = 10 + self._nodes
        self.ns.ip_batch(
            f"link add port{self._nodes} mtu {mtu} type veth"
            f" peer name eth0 mtu {mtu} netns {node.name}\n"
            f"link set port{self._nodes} master {BRIDGE} up\n"
        )
        # An uplink that is long up: while its link-local address is tentative, the kernel solicits
        # no neighbour for packets that it forwards (net/ipv6/ndisc.c, ndisc_solicit).
        node.sysctl("ipv6/conf/eth0/accept_dad", "0")
        # A new namespace has the machine's settings of IPv4 (net/ipv4/devinet.c,
        # devinet_init_net): whether that forwards is no matter of a test.
        node.sysctl("ipv4/ip_forward", "0")
        node.ip_batch(
            "link set lo up\n"
            "link set eth0 up\n"
            + self._add_addresses("eth0", number)
            + "".join(f"route add {DEFAULT[f]} via {self.gateway(f)}\n" for f in self._families)
        )
        _wait_for_link_local(node)
        return {family: str(SUBNETS[family][number]) for family in self._families}

    def _add_addresses(self, device: str, number: int) -> str:
        return "".join(
            f"address add {SUBNETS[f][number]}/{SUBNETS[f].prefixlen} dev {device} {FLAGS[f]}\n"
            for f in self._families
        )


def _wait_for_link_local(node: Namespace) -> None:
    """Until the uplink has its link-local address, with the route to it.

    The kernel adds both some time after the carrier came (net/ipv6/addrconf.c, addrconf_dad_work);
    what is compared later has them from the beginning.
    """
    routes, until = Path("/proc/thread-self/net/ipv6_route"), time.monotonic() + _SETTLED_SECONDS

    def is_there() -> bool:
        lines = map(str.split, routes.read_text().splitlines())
        return any(to[:4] == "fe80" and bits == "80" for to, bits, *_ in lines)

    while not node.call(is_there):
        assert time.monotonic() < until, f"{node} has no link-local address"
        time.sleep(0.005)
