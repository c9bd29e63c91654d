"""Port mappings: from configuration to elements and settings."""

from ipaddress import ip_address
from typing import Any

import pytest

from cni_plugin.plugins.portmap import PortMapConf, PortMapping, parse, plan_port_mappings
from ipam.errors import ConfigError
from ipam.json_section import Section
from kernel.describe import name_of
from kernel.model import IPAddress, Sysctl

V4, V6 = ip_address("10.0.0.2"), ip_address("fd00::2")
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}


def parsed(*mappings: dict[str, Any], **keys: Any) -> PortMapConf:
    return parse(Section("", {"runtimeConfig": {"portMappings": list(mappings)}, **keys}))


def planned(
    *mappings: dict[str, Any], addresses: tuple[IPAddress, ...] = (V4, V6), **keys: Any
) -> tuple[list[str], tuple[Sysctl, ...]]:
    elements, settings = plan_port_mappings(parsed(*mappings, **keys), "pw0", addresses)
    assert len(set(elements)) == len(elements)
    names = (name_of(element) for element in elements)
    return [n.removeprefix("element ").partition(" of nft")[0] for n in names], settings


def test_defaults() -> None:
    assert parse(Section("", {})) == PortMapConf((), snat=True, masquerade_all=False)
    mapping = PortMapping("tcp", 8080, 80)
    assert parsed({"hostPort": 8080, "containerPort": 80}).mappings == (mapping,)
    assert parsed({**WEB, "protocol": "TCP", "hostIP": ""}).mappings == (mapping,)
    assert parsed(WEB, snat=False, masqAll=True) == PortMapConf((mapping,), False, True)


def test_both_families() -> None:
    names, settings = planned(WEB)
    assert names == [
        "any_host_ports6 tcp . 8080 : fd00::2 . 80",
        "any_host_ports4 tcp . 8080 : 10.0.0.2 . 80",
        "same_link6 pw0 . pw0 . fd00::2",
        "hairpin6 pw0 . fd00::2 . fd00::2",
        "from_loopback4 pw0 . 10.0.0.2",
        "same_link4 pw0 . pw0 . 10.0.0.2",
        "hairpin4 pw0 . 10.0.0.2 . 10.0.0.2",
    ]
    assert settings == (Sysctl("net/ipv4/conf/pw0/route_localnet", "1"),)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", ["host_ports4 192.0.2.1 . tcp . 8080 : 10.0.0.2 . 80"]),
        ("2001:db8::1", ["host_ports6 2001:db8::1 . tcp . 8080 : fd00::2 . 80"]),
        ("0.0.0.0", ["any_host_ports4 tcp . 8080 : 10.0.0.2 . 80"]),  # noqa: S104
        ("::", ["any_host_ports6 tcp . 8080 : fd00::2 . 80"]),
        ("::ffff:192.0.2.1", ["host_ports4 192.0.2.1 . tcp . 8080 : 10.0.0.2 . 80"]),
    ],
)
def test_an_address_of_the_node(host: str, expected: list[str]) -> None:
    assert planned({**WEB, "hostIP": host}, snat=False) == (expected, ())


def test_a_family_that_the_pod_lacks_has_no_effect() -> None:
    assert planned({**WEB, "hostIP": "::"}, addresses=(V4,)) == ([], ())
    names, settings = planned(WEB, addresses=(V6,))
    assert names == [
        "any_host_ports6 tcp . 8080 : fd00::2 . 80",
        "same_link6 pw0 . pw0 . fd00::2",
        "hairpin6 pw0 . fd00::2 . fd00::2",
    ]
    assert settings == ()


def test_the_first_address_of_a_family() -> None:
    others = ip_address("10.0.0.3"), ip_address("fd00::3")
    names, _settings = planned(WEB, snat=False, addresses=(V4, V6, *others))
    assert sorted(names) == [
        "any_host_ports4 tcp . 8080 : 10.0.0.2 . 80",
        "any_host_ports6 tcp . 8080 : fd00::2 . 80",
    ]


def test_all_sources() -> None:
    names, _settings = planned(WEB, masqAll=True, addresses=(V4,))
    assert names == ["any_host_ports4 tcp . 8080 : 10.0.0.2 . 80", "always_masq4 pw0 . 10.0.0.2"]


def test_one_port_to_two_places() -> None:
    assert len(parsed(WEB, WEB, {**WEB, "protocol": "udp"}).mappings) == 3
    with pytest.raises(ConfigError, match=r"portMappings\[1\].hostPort: 8080 leads to 80 already"):
        parsed(WEB, {**WEB, "containerPort": 81})
