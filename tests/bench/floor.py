"""The physical floor: the kernel's work for a pod and nothing else, sent by a warm process.

One message makes the pair with the pod's end in its namespace, one batch there gives it addresses
and routes; a burst is deleted as one link group.  No rules: those are the plugin's choice.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_interface, ip_network

from kernel.model import SCOPE_LINK, Address, Link, Route
from kernel.netlink import links, routes
from kernel.netlink.codec import Message, text, u32
from kernel.netlink.socket import Netlink
from kernel.netns import inside
from tests.bench.contender import IFNAME, Attached, Burst, Contender, Cost
from tests.bench.networks import BRIDGE, DEFAULT_ROUTES, GATEWAYS, SUBNETS, Network
from tests.bench.results import FLOOR
from tests.bench.world import Host, Pod
from tests.pytest_netns.underlay import Family

_IFLA_GROUP = 27
_GROUP = 77
_LINK_HEADER = struct.Struct("=BxHiII")


class Floor(Contender):
    """Attaches and detaches with netlink messages, in the harness's own process."""

    def __init__(self, host: Host, network: Network, stride: int = 1) -> None:
        super().__init__(FLOOR, host, network, stride)
        self._netlink = host.call(Netlink)
        self._master = 0
        if network.mode == "bridge":
            self._make_bridge()
            self._master = host.call(lambda: socket.if_nametoindex(BRIDGE))

    def _make_bridge(self) -> None:
        gateways = "".join(
            f"address add {GATEWAYS[f]}/{_length(f)} dev {BRIDGE}\n" for f in self.network.families
        )
        self.host.node.ns.ip_batch(
            f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n{gateways}"
        )

    def add(self, pod: Pod) -> tuple[Attached, Cost]:
        number = int(self.next_id(), 16)
        addresses = {f: str(ip_network(SUBNETS[f])[number + 9]) for f in self.network.families}
        cost = self.host.call(lambda: _timed(lambda: self._attach(pod, number, addresses)))
        return Attached(pod, str(number), tuple(addresses.values())), cost

    def delete(self, attached: Attached) -> Cost:
        message = links.delete_link(_host_end(attached.container_id))
        return self.host.call(lambda: _timed(lambda: self._netlink.run([message])))

    def add_many(self, pods: Sequence[Pod]) -> tuple[list[Attached], Burst]:
        done = [self.add(pod) for pod in pods]
        walls = tuple(cost.wall for _, cost in done)
        return [a for a, _ in done], Burst(sum(walls), sum(c.cpu for _, c in done), walls)

    def delete_many(self, attached: Sequence[Attached]) -> Burst:
        names = [_host_end(a.container_id) for a in attached]
        cost = self.host.call(lambda: _timed(lambda: self._delete_group(names)))
        return Burst(cost.wall, cost.cpu, ())

    def holds(self, attached: Attached) -> list[str]:
        return []

    def close(self) -> None:
        self._netlink.close()

    def _attach(self, pod: Pod, number: int, addresses: dict[Family, str]) -> None:
        host, peer = Link(_host_end(str(number))), Link(IFNAME)
        create = links.create_veth(host, peer, pod.namespace.fd, self._master)
        self._netlink.run([create, links.set_up(host.name)])
        if not self._master:
            self._netlink.run(_routed_host(host.name, addresses))
        with inside(pod.namespace):
            inner = Netlink()
            index = socket.if_nametoindex(IFNAME)
        with inner:
            pod_side = _bridged_pod if self._master else _routed_pod
            inner.run([links.set_up("lo"), *pod_side(index, addresses)])

    def _delete_group(self, names: Sequence[str]) -> None:
        head = _LINK_HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        group = u32(_IFLA_GROUP, _GROUP)
        bodies = [head + text(links.IFLA_IFNAME, name) + group for name in names]
        self._netlink.run([Message(links.RTM_NEWLINK, 0, b, "set link group") for b in bodies])
        self._netlink.run([Message(links.RTM_DELLINK, 0, head + group, "delete link group")])


def _host_end(container_id: str) -> str:
    return f"fl{container_id}"


def _length(family: Family) -> int:
    return ip_network(SUBNETS[family]).prefixlen


def _bridged_pod(index: int, addresses: dict[Family, str]) -> list[Message]:
    with_subnet = [ip_interface(f"{a}/{_length(f)}") for f, a in addresses.items()]
    return [
        *(links.add_address(Address(IFNAME, a), index) for a in with_subnet),
        links.set_up(IFNAME),
        *(routes.add_route(r, index) for r in _default_routes(addresses)),
    ]


def _routed_pod(index: int, addresses: dict[Family, str]) -> list[Message]:
    alone = [ip_interface(a) for a in addresses.values()]
    gateways = [
        Route(ip_network(GATEWAYS[f]), IFNAME, scope=SCOPE_LINK if f == 4 else 0) for f in addresses
    ]
    return [
        *(links.add_address(Address(IFNAME, a), index) for a in alone),
        links.set_up(IFNAME),
        *(routes.add_route(r, index) for r in (*gateways, *_default_routes(addresses))),
    ]


def _routed_host(name: str, addresses: dict[Family, str]) -> list[Message]:
    index = socket.if_nametoindex(name)
    gateways = [Address(name, ip_interface(GATEWAYS[f])) for f in addresses]
    to_pods = [Route(ip_network(a), name) for a in addresses.values()]
    return [
        *(links.add_address(a, index) for a in gateways),
        *(routes.add_route(r, index) for r in to_pods),
    ]


def _default_routes(addresses: dict[Family, str]) -> list[Route]:
    return [
        Route(ip_network(DEFAULT_ROUTES[f]), IFNAME, via=ip_address(GATEWAYS[f])) for f in addresses
    ]


def _timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.thread_time()
    work()
    return Cost(time.perf_counter() - wall, time.thread_time() - cpu)
