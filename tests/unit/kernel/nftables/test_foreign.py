"""Rules of others are evaluated as the kernel would: real rules of nft and iptables-nft."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kernel.legacy_filter import LegacyRules
from kernel.netlink.codec import Message
from kernel.netlink.socket import Answer, Netlink
from kernel.nftables.flow import Flow
from kernel.nftables.foreign import (
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    ForeignRules,
)

FLOWS = {
    4: Flow(ip_address("10.244.1.2"), ip_address("10.244.2.2"), 6, 49151, "cni0", "podwire-vxlan"),
    6: Flow(ip_address("fd00:1::2"), ip_address("fd00:2::2"), 6, 49151, "cni0", "podwire-vxlan"),
}
VXLAN = Flow(ip_address("192.0.2.12"), ip_address("192.0.2.11"), 17, 8472, iif="eth0")


def nft(
    rules: str,
    *,
    family: str = "inet",
    hook: str = "forward",
    policy: str = "accept",
    sets: str = "",
    side: str = "",
) -> None:
    body = f"type filter hook {hook} priority 0; policy {policy};\n{rules}"
    chains = f"chain side {{ {side}\n }}\n chain base {{ {body}\n }}"
    script = f"table {family} other {{\n{sets} {chains}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def drop(nl: Netlink, flow: Flow = FLOWS[4], *hooks: int) -> str:
    return ForeignRules(nl).find_drop(flow, *(hooks or (FORWARD,)))


DROPPING = (
    "drop",
    "reject",
    "counter drop",
    "ip saddr 10.244.0.0/16 drop",
    "ip daddr 10.244.2.2 log drop",
    'oifname "podwire-vxlan" drop',
    'iifname "cni*" drop',
    'iifname != "eth0" drop',
    "ip saddr 10.0.0.1 accept\ndrop",
    'oifname "docker0" ct state established accept\ndrop',
    "ct state established,related accept\ndrop",
    "ct status dnat accept\ndrop",
    "ct status & (snat | dnat) != 0 accept\ndrop",
    "ct status & dnat == 0 drop",
    "meta l4proto udp accept\ntcp dport 80 accept\ndrop",
    "ip protocol tcp drop",
    "ct state new drop",
    "ip version 4 ip hdrlength 5 drop",
    "tcp dport 49151 drop",
    "th dport 49000-50000 drop",
    # A source port that is not known beside a port that is: so iptables-nft asks for both.
    "@th,0,32 0x00430044 accept\ndrop",
    "@th,0,32 != 0x00430044 drop",
    "@th,0,32 & 0x0000ffff 49151 drop",
    "jump side\ndrop",
    "limit rate 1/second drop\ndrop",
)
PASSING = (
    "",
    "accept",
    "ip saddr 10.244.0.0/16 accept\ndrop",
    "ip saddr 10.9.0.0/16 drop",
    'iifname "cni0" accept\ndrop',
    "udp dport 8472 drop",
    "ct state invalid drop",
    "limit rate 1/second accept\ndrop",  # who knows
    "return\ndrop",
    "ct status dnat drop",
    "ct status & dnat == 0 accept\ndrop",
    "ct mark 1 accept\ndrop",
    "ip frag-off & 0x1fff != 0 drop",  # the first packet has no fragment before it
    # Nothing is known of these.
    "ip ttl 64 drop",
    "ip ttl < 65 drop",
    "ip length 60 drop",
    "ip id 0 drop",
    "ip checksum 0 drop",
    "ip dscp cs0 drop",
    "tcp sport 49151 drop",
    "@th,0,32 0x0043bfff accept\ndrop",
    "@th,0,32 & 0x000100ff 0x000000ff drop",
    "tcp sport 49151 tcp dport 49151 drop",
)


@pytest.mark.parametrize("rules", DROPPING)
def test_a_certain_drop_is_found(nl: Netlink, rules: str) -> None:
    nft(rules)
    assert drop(nl).endswith(" of chain base of table inet other")


@pytest.mark.parametrize("rules", PASSING)
def test_what_passes_or_may_pass_is_not_reported(nl: Netlink, rules: str) -> None:
    nft(rules)
    assert drop(nl) == ""


@pytest.mark.parametrize(("family", "version"), [("ip", 4), ("ip6", 6), ("inet", 6)])
def test_a_policy_drops_its_family(nl: Netlink, family: str, version: int) -> None:
    nft("ct state established accept", family=family, policy="drop")
    text = f"the policy of chain base of table {family} other"
    assert drop(nl, FLOWS[version]) == text
    assert drop(nl, FLOWS[10 - version]) == (text if family == "inet" else "")


@pytest.mark.parametrize(
    ("hook", "number"), [("input", INPUT), ("output", OUTPUT), ("prerouting", PREROUTING)]
)
def test_a_hook_has_its_chains(nl: Netlink, hook: str, number: int) -> None:
    nft("udp dport 8472 drop", hook=hook)
    assert "rule" in drop(nl, VXLAN, number)
    assert drop(nl, VXLAN, FORWARD) == ""
    assert drop(nl, FLOWS[4], number) == ""


# What becomes of the packet: True where it certainly is dropped.
BY_SET = {
    "ct state { established, related } accept\ndrop": True,
    "ct state != { established, related } drop": True,
    "ct state { new, established } accept\ndrop": False,
    "ct state != { established, new, * } drop": False,  # kernels differ
    "meta l4proto { icmp, udp } accept\ndrop": True,
    "meta l4proto { tcp, udp } accept\ndrop": False,
    "meta l4proto != { tcp, udp } accept\ndrop": True,
    "meta nfproto { ipv6 } accept\ndrop": True,
    "ip protocol { tcp, udp } drop": True,
    "ip saddr { 10.244.1.2 } accept\ndrop": False,
    "ip saddr { 10.9.9.9 } drop": False,
    "ip saddr { 10.9.9.9, 10.244.0.0/16 } drop": True,
    "ip saddr { 10.9.9.9, 10.244.1.3-10.244.9.9 } drop": False,
    "ip saddr { 10.9.9.9, 10.244.0.0-10.244.1.2 } drop": True,
    "ip saddr & 255.255.0.0 != { 10.9.0.0 } drop": True,
    "ip6 saddr { fd00:1::/64 } accept\ndrop": True,
    "tcp dport { 80, 443 } accept\ndrop": True,
    "tcp dport { 80, 49000-50000 } drop": True,
    "tcp dport != { 80, 443 } drop": True,
    "tcp sport { 80, 443 } accept\ndrop": False,  # who knows
    "tcp sport { 80, 443 } drop": False,
    "udp dport { 49151 } drop": False,
    "th dport { 49151 } drop": True,
    'iifname { "docker0", "eth0" } accept\ndrop': True,
    'iifname { "docker0", "cni*" } accept\ndrop': False,
    'oifname { "docker0", "podwire*" } drop': True,
    'oifname { "docker0", "podwire-vxlan2" } drop': False,
    "meta mark { 1, 2 } accept\ndrop": False,  # who knows
    "meta l4proto . th dport { tcp . 49151, udp . 53 } drop": True,
    "meta l4proto . th dport { tcp . 80, udp . 49151 } drop": False,
    'iifname . ip daddr . tcp dport { "cni0" . 10.244.0.0/16 . 1024-65535 } drop': True,
    'iifname . ip daddr . tcp dport { "cni0" . 10.244.0.0/16 . 1-1024 } drop': False,
    "ip saddr . meta mark { 10.244.1.2 . 1 } drop": False,
    "ip saddr { 10.244.1.2 counter, 10.9.9.9 counter } drop": True,
    "ct state vmap { established : accept, new : accept }\ndrop": False,
    "ct state vmap { established : accept, related : accept, invalid : drop }\ndrop": True,
    "ct state vmap { established : accept, new : drop }": True,
    "ct state vmap { established : accept, new : continue } drop": True,
    "ct state vmap { established : accept, * : drop }": True,
    "ct state vmap { established : drop, * : accept }\ndrop": False,
    'iifname vmap { "lo" : accept, "cni0" : goto side }\naccept': True,
    'iifname vmap { "lo" : accept, "cni0" : jump side }': True,
    'iifname vmap { "lo" : accept, "eth0" : jump side }': False,
    "tcp dport vmap { 22 : accept, 49000-50000 : drop }": True,
    "tcp dport vmap { 22 : drop, 80 : drop }": False,
    "udp dport vmap { 49151 : drop }": False,
    "tcp sport vmap { 22 : accept, 80 : accept }\ndrop": False,  # who knows
    "tcp sport vmap { 0-65535 : drop }": False,
    "limit rate 1/second ct state vmap { new : accept }\ndrop": False,
    "limit rate 1/second ct state vmap { new : drop }": False,
    "ip saddr @some drop": True,
    "ip saddr @none accept\ndrop": True,
    # What packets add, and what expires, may be gone.
    "ip saddr @expiring drop": False,
    "ip saddr != @expiring drop": False,
    "ip saddr @filled accept\ndrop": False,
    "ip saddr @limited drop": False,
    "ip saddr @limited accept\ndrop": False,
    "counter name tcp dport map { 49151 : web } drop": True,
    "counter name tcp dport map { 80 : web } drop": False,
    "meta mark set ip saddr map { 10.9.9.9 : 1 } accept\ndrop": True,
    "meta mark set ip saddr map { 10.244.1.2 : 1 } accept\ndrop": False,
}
SETS = """
set some { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 192.0.2.1 }
}
set none { type ipv4_addr;
}
set expiring { type ipv4_addr; flags timeout; elements = { 10.244.1.2 timeout 1h }
}
set filled { type ipv4_addr; flags dynamic;
}
set limited { type ipv4_addr; limit rate 1/second; elements = { 10.244.1.2 limit rate 1/second }
}
counter web {
}
"""


@pytest.mark.parametrize("rules", BY_SET)
def test_sets_and_maps_are_looked_up(nl: Netlink, rules: str) -> None:
    nft(rules, sets=SETS, side="drop")
    assert bool(drop(nl)) == BY_SET[rules]


EXAMPLE = replace(FLOWS[4], iif="pw00000000000", is_example=True)
OF_PODS = {
    "ip saddr @none accept\ndrop": False,
    "ip saddr @some accept\ndrop": False,
    "ip saddr @some drop": True,
    "ip saddr != @none drop": False,
    "iifname @links accept\ndrop": False,
    "iifname . tcp dport vmap @ways\ndrop": False,
    "tcp dport @ports accept\ndrop": True,
    "ip saddr { 10.244.1.3, 10.244.1.4 } accept\ndrop": True,
}
NAMES_OF_PODS = """
set links { type ifname; elements = { pw1, pw2 }
}
set ports { type inet_service; elements = { 80, 443 }
}
map ways { type ifname . inet_service : verdict; elements = { pw1 . 80 : accept, * : drop }
}
"""


@pytest.mark.parametrize("rules", OF_PODS)
def test_what_a_set_with_a_name_has_of_other_pods_is_not_known(nl: Netlink, rules: str) -> None:
    """A program may list each pod in it."""
    nft(rules, sets=SETS + NAMES_OF_PODS)
    assert bool(drop(nl, EXAMPLE)) == OF_PODS[rules]
    assert drop(nl, replace(EXAMPLE, is_example=False)) or "@some accept" in rules


@pytest.mark.parametrize("version", [4, 6])
def test_a_set_is_of_its_table(nl: Netlink, version: int) -> None:
    """Tables number their sets without a name, each for itself."""
    nft("ct state { established, related } accept", family="ip", policy="drop")
    nft("ct state { established, new } accept", family="ip6", policy="drop")
    assert bool(drop(nl, FLOWS[version])) == (version == 4)


def test_a_change_of_a_set_is_seen(nl: Netlink) -> None:
    nft("ip saddr @none drop", sets=SETS)
    assert drop(nl) == ""
    subprocess.run(["nft", "add element inet other none { 10.244.1.2 }"], check=True)
    assert drop(nl)


def test_the_kernel_is_asked_once(nl: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a rule that is reached, and for one element however many a set has."""
    nft(
        "ip saddr @some ct state { new, established } accept\nip saddr @huge drop",
        sets=SETS + huge(20_000),
    )
    asked: list[int] = []
    exchange = nl.exchange

    def count(messages: Sequence[Message]) -> list[Answer]:
        asked.append(len(messages))
        return exchange(messages)

    monkeypatch.setattr(nl, "exchange", count)
    rules = ForeignRules(nl)
    assert asked == []
    for _ in range(3):
        assert rules.find_drop(FLOWS[4], FORWARD) == ""
    assert asked == [1, 2, 1, 2]
    other = replace(FLOWS[4], source=ip_address("198.18.0.1"))
    assert rules.find_drop(other, FORWARD)
    assert asked == [1, 2, 1, 2, 2, 1, 2]


def huge(count: int) -> str:
    first = int(ip_address("198.18.0.0"))
    elements = ", ".join(str(ip_address(first + n)) for n in range(count))
    return f"set huge {{ type ipv4_addr; flags interval; elements = {{ {elements} }}\n}}\n"


UNTRACKED = replace(VXLAN, is_untracked=True)
BY_STATE = {
    "ct state new udp dport 8472 accept\ndrop": True,
    "ct state new,established udp dport 8472 accept\ndrop": True,
    "ct direction original accept\ndrop": True,
    "ct status dnat accept\ndrop": True,
    "ct state untracked drop": True,
    "ct state new drop": False,
    "ct state invalid drop": False,
    "ct state new,untracked udp dport 8472 accept\ndrop": False,
    "ct state untracked accept\ndrop": False,
    "udp dport 8472 accept\nct state new accept\ndrop": False,
    "ct state { new, established } accept\ndrop": True,
    "ct state { untracked, established } accept\ndrop": False,
    "ct state vmap { established : accept, related : accept, invalid : drop }\ndrop": True,
    "ct state vmap { invalid : accept, untracked : drop }": True,
    "ct direction { original, reply } accept\ndrop": True,
}


@pytest.mark.parametrize("rules", BY_STATE)
def test_what_is_not_tracked_is_no_new_connection(nl: Netlink, rules: str) -> None:
    nft(rules, hook="input")
    assert bool(drop(nl, UNTRACKED, INPUT)) == BY_STATE[rules]


STATES_OF_IPTABLES = {
    "-m conntrack --ctstate NEW": False,
    "-m state --state NEW": False,
    "-m conntrack --ctstate NEW,UNTRACKED": True,
    "-m state --state NEW,UNTRACKED": True,
    "-m conntrack ! --ctstate INVALID": True,
    "-m conntrack --ctdir ORIGINAL": False,
    "-m conntrack --ctstate UNTRACKED --ctdir REPLY": True,  # xt_conntrack.c compares no more
}
PROGRAMS = ("iptables-nft", "iptables-legacy")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("match", STATES_OF_IPTABLES)
def test_states_that_iptables_matches(nl: Netlink, program: str, match: str) -> None:
    iptables(f"-A INPUT {match} -j ACCEPT", "-P INPUT DROP", program=program)
    find = LegacyRules().find_drop if program == "iptables-legacy" else ForeignRules(nl).find_drop
    assert (find(UNTRACKED, INPUT) == "") == STATES_OF_IPTABLES[match]
    is_accepted = "NEW" in match or "INVALID" in match
    if "--ctdir" not in match:
        assert (find(VXLAN, INPUT) == "") == is_accepted


BY_INDEX = {
    "iif lo accept\ndrop": True,
    "iif eth0 accept\ndrop": False,
    "iif != lo drop": True,
    "iif != eth0 drop": False,
    "iif { lo, 70000 } accept\ndrop": True,
    "iif 1-60000 drop": True,
    "iif { 60000-70000, 80000 } drop": False,
    "iif != { 60000-70000, 80000 } drop": True,
    "iif { lo, eth0 } accept\ndrop": False,
    "iif vmap { lo : accept, eth0 : drop }": True,
    "oif lo accept\ndrop": False,  # where a packet goes that comes in is not known
}


@pytest.fixture
def eth0(nl: Netlink) -> None:
    """A link of that name."""
    command = "ip link add eth0 type veth peer name far0"
    subprocess.run(command.split(), check=True)


@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize("rules", BY_INDEX)
def test_a_link_by_its_index(nl: Netlink, rules: str) -> None:
    nft(rules, hook="input")
    assert bool(drop(nl, VXLAN, INPUT)) == BY_INDEX[rules]


@pytest.mark.usefixtures("eth0")
def test_a_link_that_a_packet_leaves_by(nl: Netlink) -> None:
    nft("oif lo accept\noif eth0 drop", hook="output")
    assert "rule" in drop(nl, replace(VXLAN, iif="", oif="eth0"), OUTPUT)


@pytest.mark.usefixtures("eth0")
def test_where_a_packet_goes_is_not_known_before_it_is_routed(nl: Netlink) -> None:
    nft("oif lo accept", hook="prerouting", policy="drop")
    assert drop(nl, replace(VXLAN, oif="eth0"), PREROUTING) == ""


def test_a_rule_by_index_is_not_about_a_link_that_is_gone(nl: Netlink) -> None:
    nft("iif lo accept\ndrop", hook="input")
    assert drop(nl, replace(VXLAN, iif="gone0"), INPUT)


def iptables(*rules: str, program: str = "iptables-nft") -> None:
    for rule in rules:
        subprocess.run([program, *rule.split()], check=True)


DOCKER = (
    "-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT", "-A DOCKER-USER -j RETURN",
)  # fmt: skip
UFW = (
    "-P FORWARD DROP", "-N ufw-before-forward", "-A FORWARD -j ufw-before-forward",
    "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw-before-forward -p icmp --icmp-type 8 -j ACCEPT",
    "-A FORWARD -m comment --comment end -j REJECT",
)  # fmt: skip


@pytest.mark.parametrize("hidden", ["hoplimit 64", "hoplimit < 65", "length 20", "flowlabel 0"])
def test_nothing_else_is_known_of_an_ipv6_header(nl: Netlink, hidden: str) -> None:
    nft(f"ip6 {hidden} drop")
    assert drop(nl, FLOWS[6]) == ""
    nft("ip6 saddr fd00:1::/64 ip6 nexthdr tcp drop")
    assert drop(nl, FLOWS[6])


def test_what_a_program_decides_is_not_known(nl: Netlink) -> None:
    """An intrusion prevention system takes packets by NFQUEUE: no rule after it sees them."""
    iptables("-P FORWARD DROP", "-A FORWARD -j NFQUEUE")
    assert drop(nl) == ""
    iptables("-I FORWARD -p udp -j NFQUEUE", "-D FORWARD 2")
    assert drop(nl) == "the policy of chain FORWARD of table ip filter"


@pytest.mark.parametrize("rules", [DOCKER, UFW])
def test_rules_of_iptables_are_evaluated(nl: Netlink, rules: tuple[str, ...]) -> None:
    iptables(*rules)
    assert drop(nl).endswith("of chain FORWARD of table ip filter")
    iptables("-I FORWARD -s 10.244.0.0/16 -m comment --comment pods -j ACCEPT")
    assert drop(nl) == ""


def test_podwires_own_tables_are_left_out(nl: Netlink) -> None:
    script = (
        "table inet podwire { chain c { type filter hook forward priority 0; policy drop;\n}\n}"
    )
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    assert drop(nl) == ""


HOST_PORT = Flow(
    ip_address("203.0.113.1"), ip_address("192.0.2.11"), 6, 8080, "eth0", is_local=True
)  # fmt: skip
OTHERS_NAT = (
    "-p tcp --dport 8080 -j DNAT --to 10.9.9.9:80",
    "-m addrtype --dst-type LOCAL -p tcp --dport 8080 -j REDIRECT --to-ports 80",
)


@pytest.mark.parametrize("rule", OTHERS_NAT)
def test_a_translation_by_iptables_is_found(nl: Netlink, rule: str) -> None:
    iptables(f"-t nat -A PREROUTING {rule}")
    found = ForeignRules(nl).find_translation(HOST_PORT, -100)
    assert found.endswith("of chain PREROUTING of table ip nat")
    assert drop(nl, HOST_PORT, PREROUTING) == ""


@pytest.mark.parametrize(("table", "chain"), [("nat", "KUBE-SEP-A"), ("kube-proxy", "endpoint")])
def test_a_service_of_kubernetes_is_told_apart(nl: Netlink, table: str, chain: str) -> None:
    """In kube-proxy's modes iptables and nftables."""
    base = f"type nat hook prerouting priority -100;\ntcp dport 8080 jump {chain}\n"
    chains = f"chain {chain} {{ dnat to 10.9.9.9\n }}\nchain base {{ {base} }}\n"
    script = f"table ip {table} {{\n{chains} }}\n"
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    rules = ForeignRules(nl)
    assert f"of chain {chain} of table ip {table}" in rules.find_translation(HOST_PORT, -99)
    assert rules.find_translation(HOST_PORT, -99, services=False) == ""


@pytest.mark.parametrize(
    ("priority", "rule", "found"),
    [
        (-110, "tcp dport 8080 dnat ip to 10.9.9.9", True),
        (-100, "fib daddr type local tcp dport 8080 redirect to 80", True),
        (-90, "tcp dport 8080 dnat ip to 10.9.9.9", False),
        (-110, "tcp dport 80 dnat ip to 10.9.9.9", False),
        (-110, "ip daddr { 192.0.2.11, 192.0.2.13 } dnat ip to 10.9.9.9", True),
        (-110, "ip daddr { 192.0.2.12, 192.0.2.13 } dnat ip to 10.9.9.9", False),
        (-110, "dnat ip to tcp dport map { 8080 : 10.9.9.9 }", True),
        (-110, "dnat ip to tcp dport map { 80 : 10.9.9.9 }", False),
        (-110, "dnat ip to tcp sport map { 80 : 10.9.9.9 }", False),
        (-110, "accept\ntcp dport 8080 dnat ip to 10.9.9.9", False),
        (-110, "tcp dport 8080 masquerade", False),
    ],
)
def test_a_translation_before_a_chain(nl: Netlink, priority: int, rule: str, found: bool) -> None:
    hook = "postrouting" if "masquerade" in rule else "prerouting"
    body = f"type nat hook {hook} priority {priority};\n{rule}"
    script = f"table inet other {{\n chain base {{ {body}\n }}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    assert bool(ForeignRules(nl).find_translation(HOST_PORT, -100)) == found


def at_link(hook: str, rule: str) -> None:
    body = f"type filter hook {hook} device lo priority 0; policy accept;\n{rule}"
    script = f"table netdev other {{\n chain base {{ {body}\n }}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


@pytest.mark.parametrize(("hook", "iif", "oif"), [("ingress", "lo", "x"), ("egress", "x", "lo")])
def test_rules_at_a_link_that_a_packet_passes(nl: Netlink, hook: str, iif: str, oif: str) -> None:
    at_link(hook, "ip daddr 10.244.2.2 tcp dport 49151 drop")
    flow = replace(FLOWS[4], iif=iif, oif=oif)
    assert "table netdev other on lo" in drop(nl, flow)
    assert drop(nl, replace(flow, iif=oif, oif=iif)) == ""
    assert drop(nl, replace(FLOWS[6], iif=iif, oif=oif)) == ""


def test_rules_of_bridges_and_after_routing(nl: Netlink) -> None:
    nft('iifname "pw*" ether type ip drop', family="bridge", hook="input")
    flow = replace(FLOWS[4], iif="pw00000000000")
    assert "table bridge other" in ForeignRules(nl).find_bridge_drop(flow, INPUT)
    assert ForeignRules(nl).find_bridge_drop(flow, FORWARD) == ""
    assert ForeignRules(nl).find_bridge_drop(replace(FLOWS[6], iif=flow.iif), INPUT) == ""
    assert drop(nl, flow, INPUT) == ""
    nft("ip saddr 10.244.0.0/16 drop", hook="postrouting")
    assert drop(nl, flow, FORWARD) == ""
    assert "table inet other" in drop(nl, flow, FORWARD, POSTROUTING)
