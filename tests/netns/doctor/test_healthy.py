"""On a healthy node nothing is found, however it is configured and whatever runs beside podwire."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.netns.doctor.conftest import Made, World, doctor, is_calm, status_code
from tests.netns.health.conftest import FAST, is_well
from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.netns.routing.test_underlay import route_by_a_link_local_hop
from tests.pytest_netns.plugin import Registry

DOCKER = """\
ip link add docker0 type bridge
ip address add 172.17.0.1/16 dev docker0
ip link set docker0 up
iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables-nft -N DOCKER-USER
iptables-nft -A FORWARD -j DOCKER-USER
iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables-nft -A DOCKER-USER -s 10.244.0.0/16 -j ACCEPT
iptables-nft -A DOCKER-USER -d 10.244.0.0/16 -j ACCEPT
iptables-nft -P FORWARD DROP
"""
NO_DOCKER = """\
nft delete table ip filter
nft delete table ip nat
ip link del docker0
"""
KUBE_PROXY_NFTABLES = """\
table ip kube-proxy {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . udp . 53 : goto dns, 10.96.0.1 . tcp . 443 : goto api }
  }
  map no-endpoint-services {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.99 . tcp . 80 : drop }
  }
  chain dns { meta l4proto udp dnat to 10.244.2.2:53; }
  chain api { meta l4proto tcp dnat to 192.0.2.11:6443; }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain filter-forward {
    type filter hook forward priority -101
    ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
  }
}
"""
KUBE_PROXY_IPTABLES = """\
iptables-legacy -t nat -N KUBE-SERVICES
iptables-legacy -t nat -A PREROUTING -j KUBE-SERVICES
iptables-legacy -t nat -A KUBE-SERVICES -d 10.96.0.10 -p udp --dport 53 -j DNAT --to 10.244.2.2:53
iptables-legacy -N KUBE-FORWARD
iptables-legacy -A FORWARD -m comment --comment kubernetes -j KUBE-FORWARD
iptables-legacy -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
iptables-legacy -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
iptables-legacy -N KUBE-FIREWALL
iptables-legacy -A INPUT -j KUBE-FIREWALL
iptables-legacy -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP
"""
FIREWALLD = """\
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    jump zones
    ct state { invalid } drop
    reject with icmpx admin-prohibited
  }
  chain zones { ip saddr 10.244.0.0/16 goto trusted; ip6 saddr fd00:10:244::/48 goto trusted; }
  chain trusted { accept; }
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept
    ct state { established, related } accept
    iifname "lo" accept
    iifname "eth0" udp dport 8472-8473 accept
    iifname "podwire-vxlan" accept
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
}
"""
TAILSCALE = """\
ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main
ip rule add pref 5230 fwmark 0x80000/0xff0000 lookup default
ip rule add pref 5250 fwmark 0x80000/0xff0000 unreachable
ip rule add pref 5270 lookup 52
ip link add tailscale0 type veth peer name tail
ip link set tailscale0 up
ip route add 100.64.0.7 dev tailscale0 table 52
"""
BESIDE = {
    "docker": (DOCKER, NO_DOCKER),
    "kube-proxy with nftables": (KUBE_PROXY_NFTABLES, "nft delete table ip kube-proxy"),
    "kube-proxy with iptables": (
        KUBE_PROXY_IPTABLES,
        "iptables-legacy -F\niptables-legacy -t nat -F",
    ),
    "firewalld": (FIREWALLD, "nft delete table inet firewalld"),
    "Tailscale": (TAILSCALE, "ip rule del pref 5270\nip link del tailscale0"),
}


def do(member: Member, script: str) -> None:
    if script.startswith("table"):
        member.node.run(["nft", "-f", "-"], stdin=script)
    else:
        member.node.run(["sh", "-ec", script])


def expect_nothing(member: Member) -> None:
    """Beyond what podwire has repaired a moment ago, if anything."""
    found = [f for f in doctor(member)["findings"] if f["check"] != "repaired"]
    assert found == [], member.log
    eventually(partial(is_calm, member))
    assert status_code(member) == 0, member.log


@pytest.mark.xdist_group("doctor, others")
@pytest.mark.parametrize("program", BESIDE)
def test_other_programs_beside(world: World, program: str) -> None:
    made, removed = BESIDE[program]
    do(world.one, made)
    try:
        expect_nothing(world.one)
    finally:
        do(world.one, removed)


def two_uplinks(one: Member, two: Member) -> None:
    """A second network on which both nodes are, too, and which has the default route."""
    for number, each in enumerate((one, two), 1):
        each.node.run(["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "wire"])
        each.node.ns.ip_batch(
            f"link set eth1 up\nlink set wire up\naddress add 198.51.100.{number}/24 dev eth1\n"
            "route replace default via 198.51.100.254 dev eth1\n"
        )


def ipv4_only(cluster: Cluster) -> None:
    cluster.write(
        **{
            m.name.replace("-", "_"): {"podCIDRs": m.cidrs[:1], "addresses": m.addresses[:1]}
            for m in cluster.members
        }
    )


def ipv6_only(cluster: Cluster) -> None:
    cluster.write(
        **{
            m.name.replace("-", "_"): {"podCIDRs": m.cidrs[1:], "addresses": m.addresses[1:]}
            for m in cluster.members
        }
    )


Arrange = Callable[[Member, Member], None]
SHAPES: dict[str, tuple[dict[str, object], Arrange | None, int]] = {
    "bridge": ({"conflist": {"mode": "bridge"}}, None, 1500),
    "MTU 9000, hybrid": ({"backend": "hybrid"}, None, 9000),
    "next hops by IPv6": ({"underlay": "ipv4"}, route_by_a_link_local_hop, 1500),
    "two uplinks, host-gw": ({"backend": "host-gw"}, two_uplinks, 1500),
    "IPv6 only": ({}, None, 1500),
    "IPv4 only, without probes": ({"health": False}, None, 1500),
}
LISTS = {"IPv6 only": ipv6_only, "IPv4 only, without probes": ipv4_only}


@pytest.mark.parametrize("shape", SHAPES)
def test_other_configurations(
    netns_registry: Registry, podwire_bin: Path, tmp_path: Path, shape: str
) -> None:
    settings, arrange, mtu = SHAPES[shape]
    podwired = (podwire_bin / "podwire").resolve().with_name("podwired")
    with ExitStack() as stack:
        cluster = Made(netns_registry, stack, tmp_path, podwired).cluster()
        one, two = cluster.prepare(mtu=mtu), cluster.prepare(mtu=mtu)
        if arrange:
            arrange(one, two)
        LISTS.get(shape, Cluster.write)(cluster)
        for each in (one, two):
            conflist = {"path": str(each.conflist), **dict(settings.get("conflist", {}))}  # type: ignore[call-overload]
            each.start(**{"health": FAST, **settings, "conflist": conflist})
        pod = one.attach(podwire_bin / "podwire")
        other = two.attach(podwire_bin / "podwire")
        addresses = [a.partition("/")[0] for a in other.addresses("eth0")]
        for address in addresses:
            eventually(partial(pod.ping, address))
        if settings.get("health", True):
            eventually(partial(is_well, one, 1))
        expect_nothing(one)
