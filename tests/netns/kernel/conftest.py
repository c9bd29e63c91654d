"""Two namespaces on one wire, and kernel sockets inside them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from kernel.model import (
    RTPROT_PODWIRE_PEERS,
    Address,
    Entry,
    FdbEntry,
    IPAddress,
    Link,
    Neighbour,
    Route,
    Vxlan,
)
from kernel.netlink.socket import Netlink
from kernel.vxlan import Ensured, ensure_vxlan
from tests.pytest_netns import Namespace
from tests.pytest_netns.plugin import MakeNamespace

DEVICE = "podwire-vxlan"


@dataclass
class Side:
    """One end of the wire: a node in small, with a netlink socket."""

    ns: Namespace
    nl: Netlink
    number: int

    def underlay(self, version: int) -> IPAddress:
        return ip_address(f"192.0.2.{self.number}" if version == 4 else f"2001:db8::{self.number}")

    @property
    def mac(self) -> str:
        return f"02:00:00:00:00:{self.number:02x}"

    def link(self, version: int = 4, **changes: object) -> Link:
        """The VXLAN device that this end should have."""
        vxlan = Vxlan(7, 8472, self.underlay(version), "eth0")
        traits: dict[str, object] = {"mac": self.mac, "mtu": 1400, "alias": "podwire"}
        return Link(DEVICE, "vxlan", vxlan=vxlan, **(traits | changes))  # type: ignore[arg-type]

    def addresses(self) -> tuple[Address, ...]:
        ips = (f"10.244.{self.number}.0/32", f"fd00:10:244:{self.number}::/128")
        return tuple(Address(DEVICE, ip_interface(ip)) for ip in ips)

    def ensure(self, version: int = 4, **changes: object) -> Ensured:
        """Make the device, from inside the namespace (settings are the calling thread's)."""
        link = self.link(version, **changes)
        return self.ns.call(lambda: ensure_vxlan(self.nl, link, self.addresses()))

    def entries_for(self, other: "Side", version: int = 4) -> list[Entry]:
        """What leads to the pods of the other end."""
        prefixes = (f"10.244.{other.number}.0/24", f"fd00:10:244:{other.number}::/64")
        found: list[Entry] = [FdbEntry(DEVICE, other.mac, other.underlay(version))]
        for prefix in map(ip_network, prefixes):
            v4 = prefix.version == 4
            via = prefix.network_address if v4 else ip_address(f"fe80::{other.number}")
            found.append(Neighbour(DEVICE, via, other.mac))
            found.append(Route(prefix, DEVICE, via=via, protocol=RTPROT_PODWIRE_PEERS, onlink=v4))
        return found


MakeSide = Callable[[], Side]


@pytest.fixture
def pair(netns: MakeNamespace) -> Iterator[tuple[Side, Side]]:
    """Two ends of one veth, with addresses of both families."""
    with ExitStack() as stack:
        sides = []
        for number in (1, 2):
            ns = netns(f"side{number}")
            ns.sysctl("ipv6/conf/default/accept_dad", "0")
            sides.append(Side(ns, stack.enter_context(ns.call(Netlink)), number))
        one, two = sides
        one.ns.ip_batch(f"link add eth0 type veth peer name eth0 netns {two.ns.name}\n")
        for side in sides:
            side.ns.ip_batch(
                "link set lo up\nlink set eth0 up\n"
                f"address add {side.underlay(4)}/24 dev eth0\n"
                f"address add {side.underlay(6)}/64 dev eth0 nodad\n"
            )
        yield one, two


@pytest.fixture
def side(pair: tuple[Side, Side]) -> Side:
    """One of the two."""
    return pair[0]
