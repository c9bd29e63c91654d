"""Checksum offload of the VXLAN device: the switch, and traffic that it could spoil."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from kernel.errors import KernelError
from kernel.ethtool import (
    ensure_offload,
    offload_trouble,
    read_driver,
    read_tx_checksum,
    set_tx_checksum,
)
from kernel.routes import change_entries
from tests.netns.kernel.conftest import DEVICE, Side
from tests.pytest_netns import Namespace
from tests.pytest_netns.plugin import MakeNamespace

Pods = tuple[Namespace, Namespace]

# Every packet that leaves the node is translated, encapsulated ones too, to ports of all kinds:
# what kube-proxy's mark made of packets in the field.
TRANSLATED_TWICE = """
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "podwire-vxlan" masquerade fully-random
    oifname "eth0" udp dport 8472 masquerade fully-random
  }
}
"""
COUNTERS = ("TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "TcpRetransSegs")
SIZE = 1 << 20


@pytest.fixture
def pods(pair: tuple[Side, Side], netns: MakeNamespace) -> Iterator[Pods]:
    """A pod behind each end; the wire computes and checks every checksum, as hardware would."""
    with ExitStack() as stack:
        made = []
        for side, other in (pair, pair[::-1]):
            side.ns.sysctl("ipv4/ip_forward", "1")
            side.ensure()
            change_entries(side.nl, side.entries_for(other), [])
            side.ns.call(lambda: set_tx_checksum("eth0", enabled=False))
            pod = netns("pod")
            stack.callback(pod.remove)
            ip = f"10.244.{side.number}.5"
            side.ns.ip_batch(
                f"link add pod type veth peer name eth0 netns {pod.name}\nlink set pod up\n"
                f"route add {ip}/32 dev pod src 10.244.{side.number}.0\n"
            )
            pod.ip_batch(
                f"link set lo up\nlink set eth0 mtu 1400 up\naddress add {ip}/32 dev eth0\n"
                f"route add 10.244.{side.number}.0/32 dev eth0\n"
                f"route add default via 10.244.{side.number}.0\n"
            )
            made.append(pod)
        yield made[0], made[1]


def counters(*spaces: Namespace) -> dict[str, int]:
    """Kernel counters of bad checksums and lost segments, over all namespaces."""
    total = dict.fromkeys(COUNTERS, 0)
    for ns in spaces:
        for line in ns.run(["nstat", "-asz"]).stdout.splitlines():
            name, *values = line.split()
            if name in total:
                total[name] += int(values[0])
    return total


def transfer(pods: Pods, size: int) -> int:
    """Send bytes over TCP from one pod to the other; how many came."""
    one, two = pods
    kinds = (socket.AF_INET, socket.SOCK_STREAM)
    with two.socket(*kinds) as listener, one.socket(*kinds) as client:
        listener.bind(("10.244.2.5", 9))
        listener.listen()
        client.settimeout(60)
        client.connect(("10.244.2.5", 9))
        server, _peer = listener.accept()
        with server:
            server.settimeout(60)
            sent = received = 0
            while received < size:
                if sent < size:
                    sent += client.send(bytes(min(65536, size - sent)))
                received += len(server.recv(1 << 20))
    return received


@pytest.mark.parametrize("enabled", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("rules", ["", TRANSLATED_TWICE], ids=["plain", "translated"])
def test_no_checksum_is_bad_on_this_kernel(
    pair: tuple[Side, Side], pods: Pods, rules: str, enabled: bool
) -> None:
    """Through a wire that leaves nothing to hardware, so that receivers check what was computed."""
    for side in pair:
        side.ns.run(["nft", "-f", "-"], stdin=rules)
        side.ns.call(lambda: set_tx_checksum(DEVICE, enabled))
    assert transfer(pods, SIZE) == SIZE
    server = pods[1].echo("udp", "10.244.2.5")
    seen = pods[0].exchange(server)
    assert seen == ("10.244.1.0" if rules else "10.244.1.5")
    found = counters(*pods, *(side.ns for side in pair))
    assert found == {name: found[name] if name == "TcpRetransSegs" else 0 for name in COUNTERS}


def test_a_wrong_checksum_would_be_counted(pair: tuple[Side, Side], pods: Pods) -> None:
    """What the test above relies on."""
    spoil = """
table ip spoil {
  chain c {
    type filter hook prerouting priority raw;
    iifname "pod" meta l4proto udp udp checksum set 0x1234
  }
}
"""
    pods[0].call(lambda: set_tx_checksum("eth0", enabled=False))
    pair[0].ns.run(["nft", "-f", "-"], stdin=spoil)
    server = pods[1].echo("udp", "10.244.2.5")
    assert not pods[0].reaches(server)
    assert counters(*pods)["UdpInCsumErrors"] > 0


def inside(side: Side, work: Callable[[], object]) -> object:
    return side.ns.call(work)


def test_the_switch(side: Side) -> None:
    side.ensure()
    assert inside(side, lambda: read_tx_checksum(DEVICE)) is True
    assert inside(side, lambda: ensure_offload(DEVICE, "off", "")) is True
    assert inside(side, lambda: read_tx_checksum(DEVICE)) is False
    features = side.ns.run(["ip", "-d", "link", "show", DEVICE]).stdout
    assert DEVICE in features
    assert inside(side, lambda: ensure_offload(DEVICE, "off", "")) is None
    assert inside(side, lambda: ensure_offload(DEVICE, "auto", "some trouble")) is None
    assert inside(side, lambda: ensure_offload(DEVICE, "auto", "")) is False
    assert inside(side, lambda: read_tx_checksum(DEVICE)) is True
    assert inside(side, lambda: ensure_offload(DEVICE, "auto", "some trouble")) is True
    assert inside(side, lambda: ensure_offload(DEVICE, "on", "some trouble")) is False


def test_drivers_are_read(side: Side) -> None:
    side.ensure()
    assert inside(side, lambda: read_driver("eth0")) == "veth"
    assert inside(side, lambda: read_driver(DEVICE)) == "vxlan"
    assert inside(side, lambda: read_driver("lo")) == ""
    with pytest.raises(KernelError, match="nothing"):
        inside(side, lambda: read_driver("nothing"))
    assert inside(side, lambda: offload_trouble(["eth0"])) == ""


@pytest.mark.parametrize(
    ("release", "sound"),
    [("4.19.0-1-amd64", False), ("5.6.19", False), ("5.7.0-rc1", True), ("6.18.3", True)],
)
def test_old_kernels_are_not_trusted(side: Side, release: str, sound: bool) -> None:
    trouble = inside(side, lambda: offload_trouble(["eth0"], release))
    assert trouble == "" if sound else f"kernel {release} corrupts" in str(trouble)
