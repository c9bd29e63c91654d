"""Paths of packets, as a real kernel answers: routes, and the policy rules ahead of them."""

import errno
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from kernel.netlink.socket import Netlink
from kernel.paths import Packet, PacketPath, find_paths, read_rules
from tests.unit.cni_plugin.namespaces import elsewhere

MADE = """\
link set lo up
link add cni0 type bridge
link add pod0 type veth peer name pod1
link set pod0 master cni0
link add eth0 type veth peer name eth1
link add tun0 type veth peer name tun1
link set cni0 up
link set pod0 up
link set pod1 up
link set eth0 up
link set eth1 up
link set tun0 up
link set tun1 up
addr add 10.244.1.1/24 dev cni0
addr add fd01::1/64 dev cni0 nodad
addr add 192.0.2.11/24 dev eth0
addr add 2001:db8::11/64 dev eth0 nodad
route add 10.244.2.0/24 via 192.0.2.12
route add fd02::/64 via 2001:db8::12
route add 10.244.2.0/24 dev tun0 table 52
route add fd02::/64 dev tun0 table 300
route add prohibit 10.244.9.0/24
"""
FOUR = Packet(ip_address("10.244.2.5"), ip_address("10.244.1.5"), "cni0")
SIX = Packet(ip_address("fd02::5"), ip_address("fd01::5"), "cni0")
BY_MAIN = [
    PacketPath("eth0", ip_address("192.0.2.12")),
    PacketPath("eth0", ip_address("2001:db8::12")),
]


@pytest.fixture
def nl() -> Iterator[Netlink]:
    with elsewhere(), Netlink() as nl:
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            with open(f"/proc/sys/net/{name}", "w") as setting:
                setting.write("1")
        ip(MADE)
        yield nl


def ip(lines: str) -> None:
    for family in ("-4", "-6"):
        own = [line for line in lines.splitlines() if (":" in line) == (family == "-6")]
        subprocess.run(["ip", family, "-batch", "-"], input="\n".join(own), text=True, check=True)


def test_without_rules_the_main_table_decides(nl: Netlink) -> None:
    assert find_paths(nl, [FOUR, SIX]) == BY_MAIN
    assert str(BY_MAIN[0]) == "via 192.0.2.12 dev eth0"
    near, own = find_paths(nl, [Packet(ip_address("192.0.2.12")), Packet(ip_address("10.244.1.1"))])
    assert (near, own.link) == (PacketPath("eth0"), "lo")
    assert find_paths(nl, []) == []


@pytest.mark.parametrize(
    ("four", "six", "text"),
    [
        ("from all", "from ::/0", "from all"),
        ("from 10.244.0.0/16", "from fd01::/32", "from {} "),
        ("iif cni0 to 10.244.2.0/24", "to fd02::/64", "to {} "),
        ("not from 10.9.0.0/16", "not from fd09::/64", "not from {} "),
        ("not fwmark 0xca6c", "not fwmark 0xca6c from ::/0", "not from all fwmark 0xca6c"),
    ],
)
def test_a_rule_ahead_of_the_main_table_is_named(
    nl: Netlink, four: str, six: str, text: str
) -> None:
    ip(f"rule add pref 5270 {four} lookup 52\nrule add pref 5270 {six} lookup 300")
    for found, packet, table in zip(
        find_paths(nl, [FOUR, SIX]), (FOUR, SIX), (52, 300), strict=True
    ):
        assert (found.link, found.via, found.errno) == ("tun0", None, 0)
        assert found.rule.startswith("5270: ")
        assert found.rule.endswith(f" lookup {table}")
        assert text.partition("{")[0] in found.rule, packet
    assert str(find_paths(nl, [FOUR])[0]).startswith("dev tun0 by rule 5270: ")


def test_rules_that_catch_other_packets_are_not_named(nl: Netlink) -> None:
    ip(
        "rule add pref 10 fwmark 7 lookup 52\nrule add pref 11 from 10.9.0.0/16 lookup 52\n"
        "rule add pref 12 iif eth0 lookup 52\nrule add pref 13 from fd09::/64 lookup 300"
    )
    assert find_paths(nl, [FOUR, SIX]) == BY_MAIN
    ip("rule add pref 20 lookup 52")
    assert find_paths(nl, [FOUR])[0].rule == "20: from all lookup 52"


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("prohibit", errno.EACCES),
        ("unreachable", errno.ENETUNREACH),
        ("blackhole", errno.EINVAL),
    ],
)
def test_a_rule_that_refuses_is_named(nl: Netlink, action: str, code: int) -> None:
    ip(f"rule add pref 7 iif cni0 {action}\nrule add pref 7 from fd01::/64 {action}")
    found = find_paths(nl, [FOUR, SIX])
    assert [(f.link, f.errno) for f in found] == [("", code)] * 2
    assert [f.rule for f in found] == [
        f"7: from all iif cni0 {action}",
        f"7: from fd01::/64 {action}",
    ]


@pytest.mark.parametrize("kind", ["prohibit", "unreachable", "blackhole"])
def test_a_rule_whose_table_refuses_is_named(nl: Netlink, kind: str) -> None:
    ip(
        f"route replace {kind} 10.244.2.0/24 table 52\nroute add {kind} ::/0 table 300\n"
        "route del fd02::/64 dev tun0 table 300\n"
        "route add throw 10.244.2.0/24 table 51\nroute add blackhole 10.9.0.0/16 table 50\n"
        "rule add pref 5 lookup 50\nrule add pref 6 lookup 51\n"
        "rule add pref 7 lookup 52\nrule add pref 7 from ::/0 lookup 300"
    )
    found = find_paths(nl, [FOUR, SIX])
    assert [f.link for f in found] == ["", ""]
    assert [f.rule for f in found] == ["7: from all lookup 52", "7: from all lookup 300"]


def test_a_path_that_ends_has_its_reason(nl: Netlink) -> None:
    far, refused, gone = find_paths(
        nl,
        [
            Packet(ip_address("203.0.113.1")),
            Packet(ip_address("10.244.9.1")),
            FOUR._replace(iif="gone0"),
        ],
    )
    assert far == PacketPath(errno=errno.ENETUNREACH)
    assert str(far) == "nowhere (Network is unreachable)"
    assert refused == PacketPath(errno=errno.EACCES)
    assert gone == PacketPath(errno=errno.ENODEV)


def test_rules_read_in_their_order(nl: Netlink) -> None:
    ip("rule add pref 9 fwmark 0x10/0xf0 tos 0x10 oif eth0 ipproto udp dport 53 lookup 52")
    ip("rule add pref 8 lookup main suppress_prefixlength 0")
    assert [str(rule) for rule in read_rules(nl, 4)] == [
        "0: from all lookup 255",
        "8: from all suppress_prefixlength 0 lookup 254",
        "9: from all tos 0x10 fwmark 0x10/0xf0 oif eth0 ipproto dport lookup 52",
        "32766: from all lookup 254",
        "32767: from all lookup 253",
    ]
    assert [rule.table for rule in read_rules(nl, 6)] == [255, 254]
