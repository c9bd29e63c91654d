"""Rules of iptables-legacy are evaluated as the kernel would: real rules, read as it has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kernel.legacy_filter import LegacyRules, LegacyTable
from kernel.nftables.flow import Flow
from kernel.nftables.foreign import FORWARD, INPUT, OUTPUT, PREROUTING
from tests.unit.cni_plugin.namespaces import elsewhere
from tests.unit.kernel.nftables.test_foreign import DOCKER, FLOWS, UFW, VXLAN, iptables

LEGACY = {4: "iptables-legacy", 6: "ip6tables-legacy"}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with elsewhere():
        yield


def drop(flow: Flow = FLOWS[4], *hooks: int) -> str:
    return LegacyRules().find_drop(flow, *(hooks or (FORWARD,)))


def test_a_node_without_such_rules_has_no_tables() -> None:
    assert LegacyRules().tables == []
    assert LegacyRules().tables == []  # reading has not made them


@pytest.mark.parametrize("version", [4, 6])
def test_a_policy_drops(version: int) -> None:
    iptables("-P FORWARD DROP", program=LEGACY[version])
    text = f"the policy of chain FORWARD of table filter of {LEGACY[version]}"
    assert drop(FLOWS[version]) == text
    assert drop(FLOWS[10 - version]) == drop(FLOWS[version], INPUT) == ""


DROPPING = {
    "-s 10.244.0.0/16 -j DROP": 1,
    "-d 10.244.2.2 -j REJECT": 1,
    "! -s 10.9.0.0/16 -j DROP": 1,
    "-i cni+ -j DROP": 1,
    "! -i eth0 -o podwire-vxlan -j DROP": 1,
    "-p tcp -j DROP": 1,
    "! -p udp -j DROP": 1,
    "-p tcp --dport 49000:50000 -j DROP": 1,
    "-p tcp --syn -j DROP": 1,
    "-p tcp ! --dport 80 -j DROP": 1,
    "-m conntrack --ctstate NEW -j DROP": 1,
    "-s 10.9.9.9 -j ACCEPT\n-m comment --comment x -j DROP": 2,
    "-m limit --limit 1/s -j DROP\n-j DROP": 2,
}
PASSING = (
    "-s 10.244.0.0/16 -j ACCEPT\n-j DROP",
    "-s 10.9.0.0/16 -j DROP",
    "-o docker0 -j DROP",
    "-p udp -j DROP",
    "-p tcp --dport 80 -j DROP",
    "-p tcp ! --syn -j DROP",
    "-f -j DROP",
    "-j NFQUEUE\n-j DROP",
    "-m conntrack --ctstate ESTABLISHED -j DROP",
    "-m limit --limit 1/s -j ACCEPT\n-j DROP",
    "-p tcp -m multiport --dports 1:65535 -j ACCEPT\n-j DROP",
    "-j RETURN\n-j DROP",
)


@pytest.mark.parametrize("rules", DROPPING)
def test_a_certain_drop_is_found(rules: str) -> None:
    iptables(*(f"-A FORWARD {r}" for r in rules.splitlines()), program=LEGACY[4])
    where = f"rule {DROPPING[rules]} of chain FORWARD of table filter of iptables-legacy"
    assert drop() == where


@pytest.mark.parametrize("rules", PASSING)
def test_what_passes_or_may_pass_is_not_reported(rules: str) -> None:
    iptables(*(f"-A FORWARD {r}" for r in rules.splitlines()), program=LEGACY[4])
    assert drop() == ""


@pytest.mark.parametrize("rules", [DOCKER, UFW])
def test_rules_of_other_programs(rules: tuple[str, ...]) -> None:
    iptables(*rules, program=LEGACY[4])
    assert drop().endswith("of chain FORWARD of table filter of iptables-legacy")
    iptables("-I FORWARD -s 10.244.0.0/16 -m comment --comment pods -j ACCEPT", program=LEGACY[4])
    assert drop() == ""


def test_chains_are_followed_and_named() -> None:
    iptables(
        "-N near", "-N far", "-A FORWARD -j near", "-A FORWARD -s 10.9.0.0/16 -j ACCEPT",
        "-A near -g far", "-A near -j ACCEPT", "-A far -d 10.9.0.0/16 -j ACCEPT",
        "-A far -s 10.244.0.0/16 -j DROP",
        program=LEGACY[4],
    )  # fmt: skip
    assert drop() == "rule 2 of chain far of table filter of iptables-legacy"
    iptables("-D far 2", program=LEGACY[4])
    assert drop() == ""  # what returns from far does not go on in near
    iptables("-P FORWARD DROP", program=LEGACY[4])
    assert drop() == "the policy of chain FORWARD of table filter of iptables-legacy"


def test_other_tables_and_hooks() -> None:
    iptables("-t raw -A PREROUTING -p udp --dport 8472 -j DROP", program=LEGACY[4])
    assert drop(VXLAN, PREROUTING) == "rule 1 of chain PREROUTING of table raw of iptables-legacy"
    iptables("-t mangle -A OUTPUT -o eth0 -p udp --dport 8472 -j DROP", program=LEGACY[4])
    out = replace(VXLAN, iif="", oif="eth0")
    assert "of chain OUTPUT of table mangle" in drop(out, OUTPUT)
    assert drop(replace(out, port=80), OUTPUT) == ""


def test_a_damaged_table_ends_the_walk() -> None:
    table = LegacyTable(4, "filter", {FORWARD: 0}, {FORWARD: 0}, bytes(112))
    assert table.find(FLOWS[4], FORWARD) == ("", "")


HOST_PORT = Flow(
    ip_address("203.0.113.1"), ip_address("192.0.2.11"), 6, 8080, "eth0", is_local=True
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("-p tcp --dport 8080 -j DNAT --to 10.9.9.9:80", True),
        ("-p tcp --dport 8080 -j REDIRECT --to-ports 80", True),
        ("-m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to 10.9.9.9", True),
        ("-d 192.0.2.12 -p tcp --dport 8080 -j DNAT --to 10.9.9.9", False),
        ("-p tcp --dport 80 -j DNAT --to 10.9.9.9", False),
        ("-p tcp -m statistic --mode random --probability 0.5 -j DNAT --to 10.9.9.9", False),
    ],
)
def test_a_translation_of_the_destination(rule: str, found: bool) -> None:
    iptables(f"-t nat -A PREROUTING {rule}", program=LEGACY[4])
    text = "rule 1 of chain PREROUTING of table nat of iptables-legacy"
    assert LegacyRules().find_translation(HOST_PORT, -100) == (text if found else "")
    assert drop(HOST_PORT, PREROUTING) == ""


def test_a_service_of_kubernetes_is_told_apart() -> None:
    iptables(
        "-t nat -N KUBE-SEP-A",
        "-t nat -A KUBE-SEP-A -p tcp -j DNAT --to 10.9.9.9:80",
        "-t nat -A PREROUTING -p tcp --dport 8080 -j KUBE-SEP-A",
        program=LEGACY[4],
    )
    assert "of chain KUBE-SEP-A of table nat" in LegacyRules().find_translation(HOST_PORT, -99)
    assert LegacyRules().find_translation(HOST_PORT, -99, services=False) == ""
    iptables("-t nat -I PREROUTING -p tcp --dport 8080 -j DNAT --to 10.9.9.9", program=LEGACY[4])
    found = LegacyRules().find_translation(HOST_PORT, -99, services=False)
    assert found == "rule 1 of chain PREROUTING of table nat of iptables-legacy"
