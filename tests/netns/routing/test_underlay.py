"""The underlay as the kernel routes it: other nodes are reached by the links that packets take."""

import fcntl
import os
import select
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually
from tests.netns.routing.traffic import reach

ROUTED = """\
link add br0 type bridge
link set br0 up
address del {address}/{length} dev eth0
address add {address}/32 dev br0
address add {address}/32 dev lo
route replace {peer}/32 via inet6 {hop} dev eth0
"""


def route_by_a_link_local_hop(one: Member, two: Member) -> None:
    """The address of one on links that lead nowhere; a route leads to the other (RFC 8950)."""
    [own] = filter(None, one.node.ip("-4 address show dev eth0")[0]["addr_info"])
    [hop] = filter(None, two.node.ip("-6 address show dev eth0 scope link")[0]["addr_info"])
    names = {
        "address": one.node.address(4),
        "length": own["prefixlen"],
        "peer": two.node.address(4),
        "hop": hop["local"],
    }
    one.node.run(["ip", "route", "flush", "default"], check=False)
    one.node.ns.ip_batch(ROUTED.format(**names))


@pytest.mark.parametrize("backend", ["vxlan", "hybrid"])
def test_a_routed_host_reaches_pods(cluster: Cluster, podwire_bin: Path, backend: str) -> None:
    one, two = cluster.prepare(), cluster.prepare()
    route_by_a_link_local_hop(one, two)
    cluster.write()
    for member in (one, two):
        member.start(backend=backend, underlay="ipv4")
    cluster.settle()
    assert (one.status()["mtu"], one.status()["fault"]) == (1450, "")
    assert one.status()["underlay"] == f"{one.addresses[0]} by eth0"
    [route] = one.node.ip("route show 10.244.2.0/24 proto 113")
    assert route["dev"] == DEVICE
    device = one.node.ns.link(DEVICE)
    assert device is not None
    assert device["linkinfo"]["info_data"]["link"] == "eth0"
    pods = [member.attach(podwire_bin / "podwire") for member in (one, two)]
    assert reach(*pods)


def test_the_order_of_addresses_is_nobodys_choice(cluster: Cluster) -> None:
    one, two = (cluster.join() for _ in range(2))
    cluster.write(node_2={"addresses": two.addresses[::-1]})
    cluster.settle()
    eventually(lambda: one.node.ns.ping("10.244.2.0") or one.log)
    eventually(lambda: two.node.ns.ping("10.244.1.0") or two.log)


def test_the_uplink_follows_the_routes_to_other_nodes(cluster: Cluster) -> None:
    one, two = cluster.join(underlay="ipv4"), cluster.join(underlay="ipv4")
    cluster.settle()
    one.node.run(["ip", "link", "set", "eth0", "mtu", "1400"])
    eventually(lambda: one.status().get("mtu") == 1350 or one.log)
    route_by_a_link_local_hop(one, two)
    eventually(one.is_in_sync)
    eventually(lambda: one.node.ns.ping("10.244.2.0") or one.log)


@pytest.mark.parametrize("backend", ["host-gw", "hybrid"])
def test_routes_come_back_that_the_kernel_removed_with_an_address(
    cluster: Cluster, backend: str
) -> None:
    """An uplink without an IPv4 address for a moment, as by `netplan apply` or a DHCP client."""
    one, _two = (cluster.join(backend=backend) for _ in range(2))
    cluster.settle()
    own = f"{one.addresses[0]}/24"
    one.node.ns.ip_batch(f"address del {own} dev eth0\naddress add {own} dev eth0\n")
    eventually(lambda: one.has_route("10.244.2.0/24"))
    eventually(lambda: one.node.ns.ping("10.244.2.0") or one.log)
    [restored] = [r for r in one.history("route 10.244.2.0/24") if r["action"] == "restored"]
    assert f"address {own} of link eth0 was removed by pid" in restored["cause"]


def test_routes_by_another_link_than_the_uplink_come_back(cluster: Cluster) -> None:
    """A link that is down for a moment, of which no plan sees anything."""
    one, two, _three = (cluster.prepare() for _ in range(3))
    one.node.ns.ip_batch(f"link add eth1 type veth peer name eth1 netns {two.node.ns.name}\n")
    for number, member in enumerate((one, two), 1):
        member.node.ns.ip_batch(f"address add 198.51.100.{number}/30 dev eth1\nlink set eth1 up\n")
    cluster.write(node_2={"addresses": ["198.51.100.2"]})
    one.start(backend="host-gw")
    eventually(lambda: one.routes() >= {"10.244.2.0/24", "10.244.3.0/24"} or one.log)
    assert one.status()["underlay"] == f"{one.addresses[0]} by eth0"
    assert one.process is not None
    one.process.send_signal(signal.SIGSTOP)
    one.node.ns.ip_batch("link set eth1 down\nlink set eth1 up\n")
    one.process.send_signal(signal.SIGCONT)
    eventually(lambda: one.has_route("10.244.2.0/24"))


def test_the_device_stays_while_a_node_is_reached_by_its_uplink(cluster: Cluster) -> None:
    """A host that is routed by several uplinks: by which most nodes are reached may change."""
    one, *others = (cluster.prepare() for _ in range(4))
    [own, *far] = [member.node.address(4) for member in (one, *others)]
    routes = zip(far, ("eth0", "eth1", "eth1"), strict=True)
    one.node.ns.ip_batch(
        "link add eth1 type veth peer name x\nlink set x up\nlink set eth1 up\n"
        f"address del {own}/24 dev eth0\naddress add {own}/32 dev lo\n"
        + "".join(f"route add {to}/32 dev {link}\n" for to, link in routes)
    )
    cluster.write(node_3=None, node_4=None)
    one.start()
    eventually(one.is_in_sync)
    before = one.node.ns.link(DEVICE)
    assert before is not None
    cluster.write()
    eventually(lambda: one.routes() >= {"10.244.4.0/24"} or one.log)
    one.stop()
    one.start()
    eventually(one.is_in_sync)
    assert one.status()["underlay"] == f"{own} by eth0"
    assert one.node.ns.link(DEVICE) == before
    one.node.run(["ip", "route", "del", f"{far[0]}/32"])
    eventually(lambda: one.status()["underlay"] == f"{own} by eth1" or one.log)


_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000  # linux/if_tun.h


def open_tunnel() -> int:
    """A link wg0 that resolves no neighbours; what is sent there is read from the descriptor."""
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", b"wg0", _IFF_TUN | _IFF_NO_PI))
    return tunnel


@contextmanager
def tunnelled(*members: Member) -> Iterator[list[str]]:
    """Two nodes joined as by WireGuard: by the addresses, which are the only `AllowedIPs`."""
    addresses = ["198.51.100.1", "198.51.100.2"]
    ends = [member.node.ns.call(open_tunnel) for member in members]
    for member, address in zip(members, addresses, strict=True):
        member.node.ns.ip_batch(f"link set wg0 mtu 1420 up\naddress add {address}/24 dev wg0\n")

    packed = [ip_address(address).packed for address in addresses]
    allowed = dict(zip(ends, reversed(packed), strict=True))
    far = dict(zip(ends, reversed(ends), strict=True))
    stopping = threading.Event()

    def relay() -> None:
        while not stopping.is_set():
            for end in select.select(ends, [], [], 0.1)[0]:
                packet = os.read(end, 65536)
                if packet[16:20] == allowed[end]:
                    os.write(far[end], packet)

    wire = threading.Thread(target=relay)
    wire.start()
    try:
        yield addresses
    finally:
        stopping.set()
        wire.join()
        for end in ends:
            os.close(end)


def test_a_tunnel_of_others_is_no_common_link(cluster: Cluster, podwire_bin: Path) -> None:
    """WireGuard delivers by the destination, whatever the next hop is."""
    one, two = (cluster.prepare() for _ in range(2))
    with tunnelled(one, two) as addresses:
        for member in (one, two):
            member.node.run(["ip", "address", "flush", "dev", "eth0"])
        nodes = {f"node_{m.number}": [a] for m, a in zip((one, two), addresses, strict=True)}
        cluster.write(**{name: {"addresses": own} for name, own in nodes.items()})
        for member in (one, two):
            member.start(backend="hybrid")
        pods = [member.attach(podwire_bin / "podwire") for member in (one, two)]
        assert one.status()["underlay"] == f"{addresses[0]} by wg0"
        eventually(lambda: reach(*pods) or one.log)
        [route] = one.node.ip("route show 10.244.2.0/24 proto 113")
        assert route["dev"] == DEVICE
