"""The choice among a Node's internal addresses, as a real kernel's routes decide."""

import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from daemon.log import Log
from daemon.sources.own_address import OwnAddress, are_lost, own_addresses
from daemon.sources.remote import SourceError
from tests.unit.cni_plugin.namespaces import elsewhere
from tests.unit.daemon.waiting import wait_until

MADE = """\
link add eth0 type veth peer name x0
link add eth1 type veth peer name x1
link set lo up
link set eth0 up
link set x0 up
link set eth1 up
link set x1 up
addr add 192.0.2.11/24 dev eth0
addr add 10.9.0.11/24 dev eth1
addr add 2001:db8::11/64 dev eth0 nodad
addr add fd09::11/64 dev eth1 nodad
"""
CANDIDATES = tuple(map(ip_address, ("10.9.0.11", "192.0.2.11", "fd09::11", "2001:db8::11")))
SERVER = "https://203.0.113.1:6443"


@pytest.fixture(autouse=True)
def node() -> Iterator[None]:
    with elsewhere():
        ip(*MADE.splitlines())
        yield


def ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def chosen(*among: str, server: str = SERVER) -> list[str]:
    own = OwnAddress([ip_network(a) for a in among], Log())
    return [str(a) for a in own.choose(CANDIDATES, server)]


def test_the_first_serves_where_nothing_is_known() -> None:
    ip("route flush dev eth0")
    assert chosen("10.9.0.0/24", "192.0.2.0/24") == ["10.9.0.11"]


def test_the_default_route_decides() -> None:
    ip("route add default via 192.0.2.254", "route add default via 2001:db8::fe")
    assert chosen(server="https://nowhere.invalid") == ["192.0.2.11", "2001:db8::11"]


def test_the_path_to_the_api_server_goes_before_the_default_route() -> None:
    ip("route add default via 192.0.2.254", "route add 203.0.113.0/24 via 10.9.0.1")
    assert chosen()[0] == "10.9.0.11"
    assert chosen(server="https://[fd09::1]:6443")[1] == "fd09::11"
    # By its own address, as on the API server's node.
    assert chosen(server="https://192.0.2.11:6443")[0] == "192.0.2.11"


def test_the_key_goes_before_all() -> None:
    ip("route add default via 192.0.2.254")
    assert chosen("10.9.0.0/16") == ["10.9.0.11"]
    assert chosen("10.9.0.11/32", "2001:db8::/32") == ["10.9.0.11", "2001:db8::11"]
    assert chosen("198.51.100.0/24") == []


def test_the_choice_is_shown_once(capfd: pytest.CaptureFixture[str]) -> None:
    ip("route add default via 192.0.2.254")
    own = OwnAddress((), Log())
    for _ in range(3):
        own.choose(CANDIDATES[:2], SERVER)
        own.choose(CANDIDATES[:1], SERVER)
    assert capfd.readouterr().err.count("192.0.2.11 is used: the API server is reached by it") == 1


def test_a_node_that_reaches_no_endpoint_needs_its_addresses_set() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match=r"set source\.etcd\.addresses"):
            own_addresses([f"http://127.0.0.1:{listener.getsockname()[1]}"])


@pytest.mark.parametrize("line", ["192.0.2.11/24 dev eth0", "fd09::11/64 dev eth1"])
def test_an_address_that_the_node_has_no_longer_is_lost(line: str) -> None:
    Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1")
    Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
    assert not are_lost(CANDIDATES)
    ip(f"addr del {line}")
    assert are_lost(CANDIDATES)


def test_a_temporary_address_is_nobodys_for_long() -> None:
    """What the kernel makes beside an advertised address (RFC 8981), and prefers as a source."""
    Path("/proc/sys/net/ipv6/conf/eth1/use_tempaddr").write_text("2")
    Path("/proc/sys/net/ipv6/conf/eth1/accept_dad").write_text("0")
    ip("addr del fd09::11/64 dev eth1", "addr add fd09::11/64 dev eth1 mngtmpaddr nodad")
    target = ("fd09::99", 2379)

    def usual_source() -> str:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])

    wait_until(lambda: usual_source() != "fd09::11")
    assert own_addresses(["https://[fd09::99]:2379"]) == (ip_address("fd09::11"),)
