"""Settings below /proc/sys, and what turning forwarding on would take along."""

import subprocess
from collections.abc import Iterator

import pytest

from kernel.errors import KernelError
from kernel.forwarding import IPV6_FORWARDING, apply_node_settings
from kernel.model import Sysctl
from kernel.netlink.socket import Netlink
from kernel.sysctl import apply_sysctl, prepare_own_link, read_sysctl
from tests.unit.cni_plugin.namespaces import elsewhere

ABSENT = "net/ipv4/conf/none/rp_filter"


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    with elsewhere():
        command = "ip link add eth0 type veth peer name eth1"
        subprocess.run(command.split(), check=True)
        yield


def test_a_setting_is_read_and_written() -> None:
    path = "net/ipv4/conf/eth0/rp_filter"
    for value in ("1", "2", "2", "0"):
        apply_sysctl(Sysctl(path, value))
        assert read_sysctl(path) == value
    apply_sysctl(Sysctl(path, "1"), fresh=True)
    assert read_sysctl(path) == "1"


def test_an_absent_setting() -> None:
    assert read_sysctl(ABSENT) is None
    assert read_sysctl("net/ipv4") is None
    apply_sysctl(Sysctl(ABSENT, "1", required=False))
    with pytest.raises(KernelError, match=r"sysctl net.ipv4.conf.none.rp_filter=1: No such file"):
        apply_sysctl(Sysctl(ABSENT, "1"))


def test_a_value_that_the_kernel_refuses() -> None:
    with pytest.raises(KernelError, match=r"rp_filter=x: Invalid argument .* - it is 0: "):
        apply_sysctl(Sysctl("net/ipv4/conf/eth0/rp_filter", "x"))


def test_a_link_of_podwires_takes_no_advertisements() -> None:
    prepare_own_link("eth0")
    for setting in ("accept_ra", "accept_dad"):
        assert read_sysctl(f"net/ipv6/conf/eth0/{setting}") == "0"
        assert read_sysctl(f"net/ipv6/conf/eth1/{setting}") == "1"
    prepare_own_link("none")


@pytest.mark.parametrize("accepts", ["0", "1", "2"])
def test_links_keep_their_advertised_routes_when_the_node_forwards(accepts: str) -> None:
    for command in (
        "link set eth0 up",
        "link set eth1 up",
        "-6 route add default via fe80::1 dev eth0 proto ra",
        "-6 route add fd00::/64 via fe80::1 dev eth1 proto static",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    apply_sysctl(Sysctl("net/ipv6/conf/eth0/accept_ra", accepts))
    with Netlink() as nl:
        apply_node_settings(nl, [Sysctl("net/ipv4/ip_forward", "1")])
        assert read_sysctl("net/ipv6/conf/eth0/accept_ra") == accepts
        apply_node_settings(nl, [Sysctl(IPV6_FORWARDING, "1")])
        assert read_sysctl(IPV6_FORWARDING) == read_sysctl("net/ipv4/ip_forward") == "1"
        assert read_sysctl("net/ipv6/conf/eth0/accept_ra") == ("0" if accepts == "0" else "2")
        assert read_sysctl("net/ipv6/conf/eth1/accept_ra") == "1"
        # Once the node is a router, its links are left as they are.
        apply_sysctl(Sysctl("net/ipv6/conf/eth0/accept_ra", "1"))
        apply_node_settings(nl, [Sysctl(IPV6_FORWARDING, "1")])
        assert read_sysctl("net/ipv6/conf/eth0/accept_ra") == "1"
