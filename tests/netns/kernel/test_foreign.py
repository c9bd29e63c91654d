"""What is evaluated of other programs' rules is what becomes of real packets of VXLAN."""

from __future__ import annotations

import pytest

from kernel.nftables.flow import Flow
from kernel.nftables.foreign import INPUT, PREROUTING, ForeignRules
from kernel.nftables.peer_filter import ensure_peer_filter, node_elements, peer_elements
from kernel.nftables.table import open_nft
from tests.netns.kernel.conftest import Side

PORT = 8472
NFT = {
    "iif lo accept": False,
    "iif eth0 accept": True,
    "iif != eth0 accept": False,
    "ct state new udp dport 8472 accept": False,
    "ct state { new, established } accept": False,
    "ct state { untracked, established } accept": True,
    "ct state != { established, related } accept": True,
    "ct state vmap { established : accept, related : accept, invalid : drop }": False,
    "ct state vmap { established : accept, untracked : accept }": True,
    "ct state vmap { established : drop, * : accept }": True,
    "iif { 1-60000 } accept": True,
    "iif 60000-70000 accept": False,
    "ct direction { original, reply } accept": False,
    "ct direction original accept": False,
    "ct state untracked accept": True,
    "iif { lo, eth0 } accept": True,
    'iifname { "lo", "docker*" } accept': False,
    'iifname { "lo", "eth*" } accept': True,
    'iifname vmap { "lo" : accept, "eth0" : continue }': False,
    'iifname vmap { "lo" : accept, "eth0" : jump side }': True,
    "meta l4proto { tcp, udp } accept": True,
    "udp dport { 53, 8473-9000 } accept": False,
    "udp dport { 53, 8000-9000 } accept": True,
    "udp dport != { 53, 8000-9000 } accept": False,
    "udp dport vmap { 53 : accept, 8400-8500 : jump side }": True,
    "meta nfproto . th dport { ipv4 . 8472, ipv6 . 8472 } accept": True,
    "meta nfproto . th dport { ipv4 . 53, ipv6 . 53 } accept": False,
    "iifname . meta l4proto . th dport { eth0 . udp . 8000-9000 } accept": True,
    "iifname . meta l4proto . th dport { eth0 . tcp . 8000-9000 } accept": False,
    "ip saddr { 192.0.2.0/24, 198.51.100.1 } accept\nip6 saddr { 2001:db8::2, ::1 } accept": True,
    "ip saddr { 192.0.2.3-192.0.2.9 } accept\nip6 saddr { 2001:db8::3, ::1 } accept": False,
    "ct state new,untracked udp dport 8472 accept": True,
    "iif lo accept\nct state established,related accept\nudp dport 8472 accept": True,
}
IPTABLES = {
    "-m conntrack --ctstate NEW": False,
    "-m state --state NEW": False,
    "-m state --state NEW,UNTRACKED": True,
    "-m conntrack ! --ctstate INVALID": True,
    "-m conntrack --ctdir ORIGINAL": False,
    "-m conntrack --ctstate UNTRACKED --ctdir REPLY": True,
}


def is_received(one: Side, two: Side, version: int) -> bool:
    """Whether the overlay's packets from a peer, left out of tracking, get in."""
    elements = node_elements("eth0", "", [one.underlay(version)], PORT, None)
    elements |= peer_elements([two.underlay(version)], [])
    one.ns.call(lambda: ensure_peer_filter(elements, untracked=True))
    server = one.ns.echo("udp", str(one.underlay(version)), PORT)
    return two.ns.reaches(server, seconds=0.5)


def find_drop(one: Side, two: Side, version: int) -> str:
    """What is said of such a packet."""
    to = one.underlay(version)
    flow = Flow(two.underlay(version), to, 17, PORT, "eth0", is_untracked=True)

    def find() -> str:
        with open_nft() as nl:
            return ForeignRules(nl).find_drop(flow, PREROUTING, INPUT)

    return one.ns.call(find)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("rules", NFT)
def test_rules_of_nft(pair: tuple[Side, Side], rules: str, version: int) -> None:
    one, two = pair
    # Neighbour discovery is not what this is about.
    body = f"type filter hook input priority 0; policy drop;\nicmpv6 type 135-136 accept\n{rules}"
    chains = f"chain side {{ accept\n }}\n chain c {{ {body}\n }}\n"
    one.ns.run(["nft", "-f", "-"], stdin=f"table inet other {{\n {chains}}}\n")
    assert is_received(one, two, version) == NFT[rules]
    text = "the policy of chain c of table inet other"
    assert find_drop(one, two, version) == ("" if NFT[rules] else text)


@pytest.mark.parametrize("match", IPTABLES)
def test_rules_of_iptables(pair: tuple[Side, Side], match: str) -> None:
    one, two = pair
    one.ns.run(["iptables-nft", "-A", "INPUT", *match.split(), "-j", "ACCEPT"])
    one.ns.run(["iptables-nft", "-P", "INPUT", "DROP"])
    assert is_received(one, two, 4) == IPTABLES[match]
    assert (find_drop(one, two, 4) == "") == IPTABLES[match]
