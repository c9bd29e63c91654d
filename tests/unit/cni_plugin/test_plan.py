"""From request, configuration and addresses to a plan: what each key of the configuration does."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni_plugin.config import parse_config
from cni_plugin.errors import CniError
from cni_plugin.names import derive_mac, host_link_name, link_local, parse_alias, pod_mac
from cni_plugin.plan import plan_attachment
from cni_plugin.plan_parts import requested_mac
from cni_plugin.request import Request, parse_request
from cni_plugin.result import IPConfig, Result
from cni_plugin.shape import shape_of
from ipam.json_section import CniRoute
from ipam.transaction import Owner
from kernel.describe import name_of
from kernel.model import Address, Bridge, Plan, Port, Route, Sysctl
from kernel.nftables.masquerade import hairpin_element
from kernel.nftables.spoof_check import source_check_elements, spoof_check_elements
from tests.unit.cni_plugin.calls import environment

OWNER = Owner("net", "container1", "eth0")
HOST = host_link_name(OWNER)
V4 = IPConfig(ip_interface("10.1.0.7/24"), ip_address("10.1.0.1"))
V6 = IPConfig(ip_interface("fd00::7/64"), ip_address("fd00::1"))
DUAL = Result(
    ips=(V4, V6),
    routes=(CniRoute(ip_network("0.0.0.0/0")), CniRoute(ip_network("::/0"))),
    dns={"nameservers": ["10.1.0.53"]},
)
POD = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"}


def conf_of(**keys: Any) -> Any:
    return parse_config(
        {"name": "net", "type": "podwire", "ipam": {"subnet": "10.1.0.0/24"}, **keys}
    )


def plan(
    addresses: Result = DUAL,
    /,
    *,
    uplink: int | None = 1450,
    bridge_mtu: int | None = None,
    program: str = "podwire",
    **keys: Any,
) -> tuple[Plan, Result]:
    conf, request = conf_of(**keys), parse_request(environment(**POD))
    shape = shape_of(conf, program)
    return plan_attachment(request, conf, shape, addresses, uplink, bridge_mtu)


def test_ptp() -> None:
    """The node has the gateways and a route to each address; the pod reaches all by the gateway."""
    made, _ = plan(mode="ptp", hairpinMode=True)
    assert made.bridge is None
    assert made.masquerade == ()
    assert made.node.addresses == (
        Address(HOST, ip_interface("10.1.0.1/32")),
        Address(HOST, ip_interface("fd00::1/128")),
    )
    assert made.node.routes == (
        Route(ip_network("10.1.0.7/32"), HOST, scope=254, protocol=112),
        Route(ip_network("fd00::7/128"), HOST, scope=254, protocol=112),
    )
    assert made.node.sysctls == (
        Sysctl(f"net/ipv4/conf/{HOST}/forwarding", "1"),
        Sysctl(f"net/ipv6/conf/{HOST}/disable_ipv6", "0"),
        Sysctl(f"net/ipv6/conf/{HOST}/addr_gen_mode", "0"),
        Sysctl(f"net/ipv4/conf/{HOST}/arp_ignore", "0"),
        Sysctl(f"net/ipv6/conf/{HOST}/accept_ra", "0", required=False),
        Sysctl(f"net/ipv6/conf/{HOST}/accept_dad", "0", required=False),
        Sysctl("net/ipv4/ip_forward", "1"),
        Sysctl("net/ipv6/conf/all/forwarding", "1"),
    )
    assert made.pod.addresses == (
        Address("eth0", V4.address, prefix_route=False),
        Address("eth0", V6.address, prefix_route=False),
    )
    v4, v6 = V4.address.ip, V6.address.ip
    assert made.pod.routes == (
        Route(ip_network("10.1.0.1/32"), "eth0", src=v4, scope=253),
        Route(ip_network("10.1.0.0/24"), "eth0", via=V4.gateway, src=v4),
        Route(ip_network("fd00::1/128"), "eth0", src=v6, scope=253),
        Route(ip_network("fd00::/64"), "eth0", via=V6.gateway, src=v6),
        Route(ip_network("0.0.0.0/0"), "eth0", via=V4.gateway),
        Route(ip_network("::/0"), "eth0", via=V6.gateway),
    )
    own = (v4, v6, link_local(made.pod.links[0].mac or ""))
    assert made.elements == (
        hairpin_element(HOST, v4),
        hairpin_element(HOST, v6),
        *source_check_elements(HOST, own, bridged=False),
    )


def test_ptp_needs_no_route_to_a_subnet_of_one_address() -> None:
    alone = IPConfig(ip_interface("10.1.0.7/32"), ip_address("10.9.9.9"))
    made, _ = plan(Result(ips=(alone,)), mode="ptp")
    assert [r.dst for r in made.pod.routes] == [ip_network("10.9.9.9/32")]


def test_ptp_takes_the_first_address_for_a_gateway_that_ipam_does_not_name() -> None:
    made, result = plan(Result(ips=(IPConfig(V4.address),)), mode="ptp")
    assert made.node.addresses == (Address(HOST, ip_interface("10.1.0.1/32")),)
    assert result.ips[0].gateway == V4.gateway


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
@pytest.mark.parametrize(
    "addresses",
    [
        ["10.77.0.5/32"],
        ["255.255.255.255/32"],
        ["fd00::5/128"],
        ["10.78.0.1/24"],
        ["10.78.0.1/31"],
        ["10.78.0.7/24", "10.78.0.1/24"],
    ],
)
def test_a_gateway_that_no_address_is_left_for(mode: str, addresses: list[str]) -> None:
    ips = tuple(IPConfig(ip_interface(address)) for address in addresses)
    with pytest.raises(CniError, match=f"no gateway for {addresses[0]}") as caught:
        plan(Result(ips=ips), mode=mode, isGateway=True)
    assert caught.value.code == 104


def test_the_first_address_of_a_pair_is_the_gateway_of_the_second() -> None:
    _, result = plan(Result(ips=(IPConfig(ip_interface("10.78.0.0/31")),)), mode="ptp")
    assert result.ips[0].gateway == ip_address("10.78.0.1")


def test_two_addresses_with_one_gateway() -> None:
    other = IPConfig(ip_interface("10.1.0.9/24"), V4.gateway)
    made, _ = plan(Result(ips=(V4, other)), mode="ptp")
    assert len(made.node.addresses) == 1
    bridged, _ = plan(Result(ips=(V4, other)), mode="bridge", isGateway=True)
    assert bridged.bridge is not None
    assert bridged.bridge.gateways == (ip_interface("10.1.0.1/24"),)


def test_bridge_with_gateway() -> None:
    made, _ = plan(mode="bridge", bridge="br7", isGateway=True, forceAddress=True, hairpinMode=True)
    gateways = (ip_interface("10.1.0.1/24"), ip_interface("fd00::1/64"))
    settings = (
        Sysctl("net/ipv4/conf/br7/forwarding", "1"),
        Sysctl("net/ipv6/conf/br7/disable_ipv6", "0"),
        Sysctl("net/ipv6/conf/br7/addr_gen_mode", "0"),
    )
    assert made.bridge == Bridge(
        "br7", mtu=1450, gateways=gateways, force_address=True, sysctls=settings
    )
    assert made.node.links[0].port == Port("br7", hairpin=True)
    assert not made.node.addresses
    assert not made.node.routes
    assert made.node.sysctls == (
        Sysctl(f"net/ipv6/conf/{HOST}/accept_ra", "0", required=False),
        Sysctl("net/ipv4/ip_forward", "1"),
        Sysctl("net/ipv6/conf/all/forwarding", "1"),
    )
    assert made.pod.addresses == (Address("eth0", V4.address), Address("eth0", V6.address))
    assert made.pod.routes == (
        Route(ip_network("0.0.0.0/0"), "eth0", via=V4.gateway),
        Route(ip_network("::/0"), "eth0", via=V6.gateway),
    )
    addresses, mac = [ip.address.ip for ip in DUAL.ips], made.pod.links[0].mac or ""
    assert made.elements == (
        *(hairpin_element("br7", address) for address in addresses),
        *spoof_check_elements(HOST, mac),
        *source_check_elements(HOST, (*addresses, link_local(mac)), bridged=True),
    )


def test_bridge_without_gateway() -> None:
    made, _ = plan(mode="bridge", portIsolation=True, promiscMode=True, sourceCheck=False)
    assert made.bridge == Bridge("cni0", mtu=1450, promisc=True)
    assert made.node.links[0].port == Port("cni0", isolated=True)
    assert [s.path for s in made.node.sysctls] == [f"net/ipv6/conf/{HOST}/accept_ra"]
    assert made.elements == ()


def test_default_gateway_adds_the_default_routes_that_ipam_did_not_give() -> None:
    one = Result(ips=(V4, V6), routes=(CniRoute(ip_network("0.0.0.0/0"), ip_address("10.1.0.9")),))
    made, result = plan(one, mode="bridge", isDefaultGateway=True)
    assert [(r.dst, r.via) for r in made.pod.routes] == [
        (ip_network("0.0.0.0/0"), ip_address("10.1.0.9")),
        (ip_network("::/0"), V6.gateway),
    ]
    assert made.bridge is not None
    assert made.bridge.gateways
    assert len(result.routes) == 2


@pytest.mark.parametrize(("table", "tables"), [(100, [100, 254]), (254, [254]), (0, [254])])
def test_a_default_route_of_another_table_is_no_default_route(
    table: int, tables: list[int]
) -> None:
    route = CniRoute(ip_network("0.0.0.0/0"), table=table)
    made, _ = plan(Result(ips=(V4,), routes=(route,)), mode="bridge", isDefaultGateway=True)
    assert [r.table for r in made.pod.routes] == tables


def test_numbers_of_ipams_routes() -> None:
    route = CniRoute(ip_network("10.2.0.0/16"), None, 1400, 1360, 5, 100, 253)
    made, _ = plan(Result(ips=(V4,), routes=(route,)), mode="bridge")
    (found,) = made.pod.routes
    assert (found.mtu, found.advmss, found.priority, found.table) == (1400, 1360, 5, 100)
    assert (found.scope, found.via) == (253, V4.gateway)


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_links(mode: str) -> None:
    made, result = plan(mode=mode, ipMasq=True, mtu=1300)
    (host,), (pod,) = made.node.links, made.pod.links
    assert (host.name, host.mac) == (HOST, derive_mac("node", "net", "container1", "eth0"))
    assert (pod.name, pod.mac) == ("eth0", derive_mac("pod", "net", "10.1.0.7/24"))
    assert host.mtu == pod.mtu == 1300
    mark = parse_alias(host.alias)
    assert mark is not None
    assert mark.owner == OWNER
    assert (mark.addresses, mark.masquerade) == ((V4.address, V6.address), True)
    assert (mark.ipam, mark.pod) == ("", "default/web")
    assert made.masquerade == (ip_network("10.1.0.0/24"), ip_network("fd00::/64"))
    *_, last = result.interfaces
    assert (last.name, last.sandbox, last.mac) == ("eth0", "/run/netns/pod", pod.mac)
    assert {ip.interface for ip in result.ips} == {len(result.interfaces) - 1}
    assert [i.name for i in result.interfaces[-2:]] == [HOST, "eth0"]


@pytest.mark.parametrize(
    ("uplink", "mtu", "found"), [(1450, 0, 1450), (9000, 1400, 1400), (None, 0, 1500)]
)
def test_mtu(uplink: int | None, mtu: int, found: int) -> None:
    made, _ = plan(uplink=uplink, mode="ptp", mtu=mtu)
    assert made.node.links[0].mtu == made.pod.links[0].mtu == found


@pytest.mark.parametrize(
    ("uplink", "bridge_mtu", "keys", "found"),
    [
        (9000, 1500, {}, 1500),
        (1400, 1500, {}, 1500),
        (1400, 9000, {}, 9000),
        (None, 1400, {}, 1400),
        (1400, None, {}, 1400),
        (1400, 1500, {"mtu": 1300}, 1300),
        (9000, 1500, {"isGateway": True}, 1500),
        (1400, 1500, {"isGateway": True}, 1400),
        (None, 1400, {"isDefaultGateway": True}, 1400),
        (None, 9000, {"isDefaultGateway": True}, 1500),
    ],
)
def test_mtu_on_a_bridge_that_is_there(
    uplink: int | None, bridge_mtu: int | None, keys: dict[str, Any], found: int
) -> None:
    """It is the bridge's; where podwire routes between bridge and uplink, the smaller of both."""
    made, _ = plan(uplink=uplink, bridge_mtu=bridge_mtu, mode="bridge", **keys)
    assert made.node.links[0].mtu == made.pod.links[0].mtu == found


@pytest.mark.parametrize("gateway", [True, False])
def test_a_bridge_too_small_for_ipv6(gateway: bool) -> None:
    with pytest.raises(CniError, match="the MTU of bridge cni0, 1200 is below 1280") as caught:
        plan(bridge_mtu=1200, mode="bridge", isGateway=gateway)
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("mtu", "ips", "refused"),
    [(1279, (V4, V6), True), (1280, (V4, V6), False), (600, (V4,), False)],
)
def test_an_mtu_too_small_for_ipv6(mtu: int, ips: tuple[IPConfig, ...], refused: bool) -> None:
    if refused:
        with pytest.raises(CniError, match=f"mtu: {mtu} is below 1280") as caught:
            plan(Result(ips=ips), mode="ptp", mtu=mtu)
        assert caught.value.code == 7
    else:
        plan(Result(ips=ips), mode="ptp", mtu=mtu)


def test_no_addresses() -> None:
    """Such an attachment has no forwarding, and no masquerade whatever the configuration has."""
    made, result = plan(Result(), mode="bridge", isGateway=True, ipMasq=True, ipam={})
    assert not any((made.masquerade, made.elements, made.pod.addresses, made.pod.sysctls))
    assert made.pod.links[0].mac == derive_mac("pod", "net", "container1", "eth0")
    mark = parse_alias(made.node.links[0].alias)
    assert mark is not None
    assert not mark.masquerade
    assert result.ips == ()


def test_a_pod_that_leases_its_address() -> None:
    """Its MAC is known before the address; and it may send without one, as DHCP does."""
    conf, request = conf_of(mode="bridge"), parse_request(environment(**POD))
    shape = shape_of(conf, "podwire", "dhcp")
    before, _ = plan_attachment(request, conf, shape, Result(), 1500)
    after, _ = plan_attachment(request, conf, shape, Result(ips=(V4,)), 1500)
    assert before.pod.links == after.pod.links
    assert before.pod.links[0].mac == derive_mac("pod", "net", "container1", "eth0")
    mark = parse_alias(after.node.links[0].alias)
    assert mark is not None
    assert pod_mac(mark) == after.pod.links[0].mac
    mac = after.pod.links[0].mac
    assert mac is not None
    sources = [V4.address.ip, link_local(mac), ip_address("0.0.0.0")]  # noqa: S104
    assert set(source_check_elements(HOST, sources, (), bridged=True)) <= set(after.elements)


def test_settings_in_the_pod_are_ipv6s() -> None:
    assert plan(Result(ips=(V4,)), mode="ptp")[0].pod.sysctls == ()
    for enabled, value in ((False, "0"), (True, "1")):
        made, _ = plan(mode="ptp", enabledad=enabled)
        assert made.pod.sysctls == (
            Sysctl("net/ipv6/conf/lo/disable_ipv6", "0", required=False),
            Sysctl("net/ipv6/conf/eth0/disable_ipv6", "0"),
            Sysctl("net/ipv6/conf/eth0/keep_addr_on_down", "1", required=False),
            Sysctl("net/ipv6/conf/eth0/accept_dad", value, required=False),
            Sysctl("net/ipv6/conf/eth0/addr_gen_mode", "0", required=False),
            *([Sysctl("net/ipv6/conf/eth0/enhanced_dad", "1", required=False)] if enabled else []),
        )


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize("enabled", [True, False])
def test_duplicate_address_detection_is_ipv6s(mode: str, enabled: bool) -> None:
    made, _ = plan(mode=mode, enabledad=enabled)
    assert [address.dad for address in made.pod.addresses] == [False, enabled]


def test_an_interface_that_stays_down() -> None:
    for disabled in (False, True):
        made, _ = plan(Result(), mode="bridge", disableContainerInterface=disabled, ipam={})
        assert made.pod.links[0].up is not disabled
        assert made.node.links[0].up


@pytest.mark.parametrize(
    ("keys", "mac", "sources"),
    [
        ({}, True, True),
        ({"mode": "ptp"}, False, True),
        ({"macspoofchk": False}, False, True),
        ({"sourceCheck": False}, False, False),
        ({"sourceCheck": False, "macspoofchk": True}, True, False),
        ({"type": "bridge"}, False, False),
        ({"type": "bridge", "macspoofchk": True}, True, False),
        ({"type": "bridge", "sourceCheck": True}, False, True),
        ({"ipam": {}}, False, False),
    ],
)
def test_what_a_pod_is_held_to(keys: dict[str, Any], mac: bool, sources: bool) -> None:
    """Its MAC and addresses as podwire, neither as a reference plugin, unless asked for."""
    addresses = Result(ips=(V4,) if keys.get("ipam") is None else ())
    made, _ = plan(addresses, **{"mode": "bridge", "hairpinMode": False, **keys})
    names = {e.set_name for e in made.elements}
    assert ("checked_ports" in names, "checked_sources" in names) == (mac, sources)
    own = made.pod.links[0].mac or ""
    expected = [*spoof_check_elements(HOST, own)] if mac else []
    bridged = made.bridge is not None
    addresses_ = (V4.address.ip, link_local(own))
    expected += source_check_elements(HOST, addresses_, bridged=bridged) if sources else ()
    assert [e for e in made.elements if not e.set_name.startswith("hairpin")] == expected


def test_prefixes_that_a_pod_may_send_from() -> None:
    """Neighbouring and nested ones become one: a set of nftables holds no overlaps."""
    made, _ = plan(
        Result(ips=(V4,)),
        mode="bridge",
        allowedSourcePrefixes=["10.8.0.0/16", "10.9.0.0/16", "10.9.1.0/24", "fd01::/64"],
    )
    names = [name_of(e) for e in made.elements if "prefixes" in e.set_name]
    assert [n.removeprefix("element ").split(" of ")[0] for n in names] == [
        f"allowed_prefixes4 {HOST} . 10.8.0.0/15",
        f"allowed_prefixes6 {HOST} . fd01::/64",
        f"allowed_target_prefixes6 {HOST} . fd01::/64",
    ]


@pytest.mark.parametrize("prefix", ["10.8.0.1/16", "10.8.0.0", "any", "fd01::/129"])
def test_a_prefix_that_is_none(prefix: str) -> None:
    with pytest.raises(CniError) as caught:
        conf_of(allowedSourcePrefixes=[prefix])
    assert caught.value.code == 7
    assert "allowedSourcePrefixes" in str(caught.value)
    assert prefix in str(caught.value)


def test_the_link_local_address_of_a_mac() -> None:
    assert str(link_local("02:11:22:33:44:55")) == "fe80::11:22ff:fe33:4455"


@pytest.mark.parametrize(
    ("keys", "nameservers"),
    [
        ({}, ["10.1.0.53"]),
        ({"dns": {"nameservers": ["10.0.0.2"]}}, ["10.0.0.2"]),
        (
            {
                "dns": {"nameservers": ["10.0.0.2"]},
                "runtimeConfig": {"dns": {"servers": ["10.0.0.3"]}},
            },
            ["10.0.0.3"],
        ),
    ],
)
def test_dns(keys: dict[str, Any], nameservers: list[str]) -> None:
    """The capability outranks the configuration, which outranks IPAM."""
    _, result = plan(mode="ptp", **keys)
    assert result.dns["nameservers"] == nameservers


CAPABILITY = {"runtimeConfig": {"mac": "02:00:00:00:00:01"}}
ARGS = {"args": {"cni": {"mac": "02:00:00:00:00:02"}}}


@pytest.mark.parametrize(
    ("keys", "environment_mac", "mac"),
    [
        ({**CAPABILITY, **ARGS}, "02:00:00:00:00:03", "02:00:00:00:00:01"),
        (ARGS, "02:00:00:00:00:03", "02:00:00:00:00:02"),
        ({}, "02:AB:00:00:00:03", "02:ab:00:00:00:03"),
        ({}, "", ""),
        *(
            case
            for mac in ("02:ab:00:00:00:03", "02-AB-00-00-00-03", "02AB.0000.0003")
            for case in (
                ({"runtimeConfig": {"mac": mac}}, "", "02:ab:00:00:00:03"),
                ({"args": {"cni": {"mac": mac}}}, "", "02:ab:00:00:00:03"),
                ({}, mac, "02:ab:00:00:00:03"),
            )
        ),
    ],
)
def test_requested_mac(keys: dict[str, Any], environment_mac: str, mac: str) -> None:
    request = Request("ADD", args={"MAC": environment_mac} if environment_mac else {})
    assert requested_mac(request, conf_of(**keys)) == mac


@pytest.mark.parametrize(
    "mac",
    [
        "01:00:00:00:00:01",
        "00:00:00:00:00:00",
        "02:00:00:00:01",
        "02:00:00:00:00:0g",
        "2:0:0:0:0:1",
        "02-00:00:00:00:01",
        "020000000001",
        "0100.0000.0001",
    ],
)
def test_a_mac_that_no_interface_can_have(mac: str) -> None:
    with pytest.raises(CniError, match="CNI_ARGS MAC") as caught:
        requested_mac(Request("ADD", args={"MAC": mac}), conf_of())
    assert caught.value.code == 4


def test_a_multicast_mac_of_the_configuration() -> None:
    with pytest.raises(CniError, match=r"args\.cni\.mac") as caught:
        requested_mac(Request("ADD"), conf_of(args={"cni": {"mac": "03:00:00:00:00:01"}}))
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("program", "keys", "mode", "hairpin"),
    [
        ("podwire", {}, "ptp", True),
        ("podwire", {"mode": "bridge"}, "bridge", True),
        ("podwire", {"mode": "bridge", "promiscMode": True}, "bridge", False),
        ("podwire", {"mode": "bridge", "hairpinMode": False}, "bridge", False),
        ("podwire", {"type": "bridge"}, "bridge", False),
        ("bridge", {"mode": "ptp"}, "bridge", False),
        ("bridge", {"hairpinMode": True}, "bridge", True),
        ("ptp", {"type": "bridge"}, "ptp", False),
    ],
)
def test_shape(program: str, keys: dict[str, Any], mode: str, hairpin: bool) -> None:
    """Under a reference plugin's name podwire has that plugin's defaults."""
    shape = shape_of(conf_of(**keys), program, "other-ipam")
    assert (shape.mode, shape.hairpin, shape.delegate) == (mode, hairpin, "other-ipam")


@pytest.mark.parametrize("masquerade", [False, True])
@pytest.mark.parametrize("asked", [None, False, True])
@pytest.mark.parametrize(
    ("program", "mode"), [("podwire", "ptp"), ("podwire", "bridge"), ("ptp", "ptp")]
)
def test_a_pods_connections_to_itself_are_masqueraded_with_all_or_where_asked(
    program: str, mode: str, asked: bool | None, masquerade: bool
) -> None:
    """For their sake alone the kernel would track every connection of the node."""
    keys: dict[str, Any] = {"mode": mode, "ipMasq": masquerade, "isGateway": True}
    conf = conf_of(**keys, **({} if asked is None else {"hairpinMode": asked}))
    assert shape_of(conf, program).masquerade_hairpin == (masquerade if asked is None else asked)


@pytest.mark.parametrize("key", ["isGateway", "isDefaultGateway"])
def test_either_key_makes_a_gateway(key: str) -> None:
    assert shape_of(conf_of(**{key: True}), "podwire").gateway
    assert not shape_of(conf_of(), "podwire").gateway
