"""Entries of connection tracking are deleted by pattern, whatever way that takes."""

import re
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

import pytest

from kernel.conntrack import (
    WALKS_MAX,
    Flow,
    SharedPass,
    forget_flows,
    forget_flows_to_node,
    forget_listed,
    forget_pods,
    forget_senders,
    of_pods,
)
from kernel.model import IPAddress
from kernel.nftables.table import open_nft
from tests.netns.kernel.conftest import Side
from tests.pytest_netns import Namespace

PODS = ("192.0.2.66", "2001:db8::66")
UNUSED = [ip_address("198.51.100.0") + n for n in range(WALKS_MAX)]
TRACKING = """
table inet tracking {
  chain input { type filter hook input priority filter; ct state new accept; }
  chain output { type filter hook output priority filter; ct state new accept; }
}
"""
Forget = Callable[[Iterable[IPAddress]], object]


@pytest.fixture
def tracking(pair: tuple[Side, Side]) -> Namespace:
    """One end that tracks connections; the other end has a second address, the pod's."""
    one, two = pair
    one.ns.run(["nft", "-f", "-"], stdin=TRACKING)
    two.ns.ip_batch(f"address add {PODS[0]}/24 dev eth0\naddress add {PODS[1]}/64 dev eth0 nodad\n")
    for version, pod in zip((4, 6), PODS, strict=True):
        for address in (str(two.underlay(version)), pod):
            assert one.ns.ping(address)
            for protocol in ("tcp", "udp"):
                one.ns.exchange(two.ns.echo(protocol, address, 53))
                two.ns.exchange(one.ns.echo(protocol, str(one.underlay(version))), bind=address)
    return one.ns


def entries(ns: Namespace) -> list[str]:
    text = ns.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    pods = [f"={ip_address(pod).exploded} " for pod in PODS]
    return [line for line in text.splitlines() if any(pod in line for pod in pods)]


def others(ns: Namespace) -> list[str]:
    text = ns.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    # Who looks at an entry holds it, which counts as one more use.
    lines = (re.sub(r" use=\d+", "", line.partition(" src=")[2]) for line in text.splitlines())
    pods = [f"={ip_address(pod).exploded} " for pod in PODS]
    return sorted(line for line in lines if line and not any(pod in line for pod in pods))


def listed(addresses: Iterable[IPAddress]) -> None:
    """As on a kernel that deletes by tuple alone."""
    with open_nft() as nl:
        forget_listed(nl, [*of_pods(addresses)])


WAYS: dict[str, Forget] = {
    "walks": forget_pods,
    "one dump": lambda addresses: forget_pods([*addresses, *UNUSED]),
    "as before Linux 6.11": listed,
    "shared": lambda addresses: SharedPass().forget_pods(addresses),
}


@pytest.mark.parametrize("way", WAYS)
def test_connections_of_pods_and_no_others(tracking: Namespace, way: str) -> None:
    before = others(tracking)
    assert len(entries(tracking)) >= 10
    assert len(before) >= 10
    tracking.call(lambda: WAYS[way](map(ip_address, PODS)))
    assert entries(tracking) == []
    assert others(tracking) == before


def test_connections_to_pods(tracking: Namespace) -> None:
    tracking.call(lambda: forget_senders(map(ip_address, PODS)))
    pods = [ip_address(pod).exploded for pod in PODS]
    assert entries(tracking)
    sources = {line.partition(" src=")[2].partition(" ")[0] for line in entries(tracking)}
    assert sources == {*pods}, "those that began with the pod stay"


@pytest.mark.parametrize("more", [0, WALKS_MAX])
@pytest.mark.parametrize("address", [None, PODS[0]])
def test_connections_to_ports(tracking: Namespace, address: str | None, more: int) -> None:
    flows = [Flow(4, 17, 53, ip_address(address) if address else None)]
    flows += [Flow(4, 17, 1000 + n) for n in range(more)]
    tracking.call(lambda: forget_flows(flows))
    text = tracking.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    left = [line for line in text.splitlines() if "dport=53 " in line.partition(" src=")[2]]
    udp = [line for line in left if line.startswith("ipv4") and " udp " in line]
    assert len(udp) == (1 if address else 0)
    assert [line for line in left if line.startswith("ipv4") and " tcp " in line]
    assert [line for line in left if line.startswith("ipv6") and " udp " in line]


@pytest.mark.parametrize("more", [0, WALKS_MAX])
def test_connections_to_the_nodes_ports(pair: tuple[Side, Side], more: int) -> None:
    """Those to the same port of somebody else stay."""
    one, two = pair
    one.ns.run(["nft", "-f", "-"], stdin=TRACKING)
    for version in (4, 6):
        one.ns.exchange(two.ns.echo("udp", str(two.underlay(version)), 53))
        two.ns.exchange(one.ns.echo("udp", str(one.underlay(version)), 53))
    flows = [
        Flow(version, 17, port) for version in (4, 6) for port in (53, *range(1000, 1000 + more))
    ]
    one.ns.call(lambda: forget_flows_to_node(flows))
    text = one.ns.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    left = [line.split(" src=")[1] for line in text.splitlines() if "dport=53 " in line]
    assert sorted(line.split()[1] for line in left) == sorted(
        f"dst={two.underlay(version).exploded}" for version in (4, 6)
    )


def test_nothing_is_tracked(side: Side) -> None:
    """It is no error, whatever way it takes."""
    for way in WAYS.values():
        side.ns.call(lambda way=way: way(map(ip_address, PODS)))  # type: ignore[misc]


def test_threads_share_a_pass(tracking: Namespace) -> None:
    """None of them returns before its addresses are done."""
    shared, seen = SharedPass(), list[int]()

    def forget_one(address: str) -> None:
        def run() -> None:
            shared.forget_pods([ip_address(address)])
            text = Path("/proc/thread-self/net/nf_conntrack").read_text()
            seen.append(text.count(f"={ip_address(address).exploded} "))

        tracking.call(run)

    addresses = [*PODS, *map(str, UNUSED)]
    threads = [threading.Thread(target=forget_one, args=(a,)) for a in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0] * len(addresses)
