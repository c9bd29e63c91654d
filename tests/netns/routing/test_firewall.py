"""A pod that other programs' filters accept, on a node with the daemon: it stays accepted."""

from pathlib import Path

import pytest

from tests.netns.routing.conftest import Member, eventually
from tests.netns.routing.traffic import address
from tests.pytest_netns import Namespace

Pair = tuple[Member, Member]
DAMAGE = {
    "rules flushed": ["iptables", "-F", "CNI-FORWARD"],
    "chain left out": ["iptables", "-D", "FORWARD", "1"],
    "table removed": ["nft", "delete", "table", "ip", "filter"],
    "policy flushed": ["nft", "flush", "chain", "inet", "podwire", "ingress_policies"],
    "policy's sets flushed": ["nft", "flush", "set", "inet", "podwire", "policy_links"],
    "ruleset flushed": ["nft", "flush", "ruleset"],
}


def attach(member: Member, plugin: Path) -> Namespace:
    eventually(member.conflist.exists)
    pod = member.make_pod()
    member.pods.append(pod)
    conf = {**member.conf(), "firewall": {"ingressPolicy": "isolated"}}
    answer = member.node.cni("ADD", plugin, conf, container_id="c1", netns=pod.path)
    assert answer.code == 0, answer
    return pod


def rules(member: Member) -> set[tuple[str, str]]:
    """The filters, and the elements and rules of the policy; each with what it is in.

    A set: while rules are loaded, `nft list ruleset` may show chains twice.
    """
    marks = ("CNI", "_link . ", "policy_links", "@isolated_link")
    return {
        (listing[0], line.strip())
        for listing in (["iptables", "-S"], ["ip6tables", "-S"], ["nft", "-s", "list", "ruleset"])
        for line in member.node.run(listing).stdout.splitlines()
        if any(mark in line for mark in marks)
    }


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_removed_comes_back(pair: Pair, podwire_bin: Path, damage: str) -> None:
    one, two = pair
    one.node.run(["iptables", "-P", "FORWARD", "DROP"])
    pod = attach(one, podwire_bin / "podwire")
    assert pod.ping(two.addresses[0])
    before, known = rules(one), len(one.history("nftables"))
    assert ("iptables", f"-A CNI-FORWARD -s {address(pod)}/32 -j ACCEPT") in before
    one.node.run(DAMAGE[damage])
    eventually(lambda: rules(one) == before or (rules(one), before, one.log))
    eventually(lambda: "restored" in [r["action"] for r in one.history("nftables")[known:]])
    assert pod.ping(two.addresses[0])


def test_a_filter_that_is_there_before_the_daemon(pair: Pair, podwire_bin: Path) -> None:
    one, two = pair
    pod = attach(one, podwire_bin / "podwire")
    one.stop()
    one.node.run(["iptables", "-F", "CNI-FORWARD"])
    one.node.run(["iptables", "-P", "FORWARD", "DROP"])
    assert not pod.ping(two.addresses[0], seconds=2)
    one.start()
    eventually(lambda: pod.ping(two.addresses[0]) or one.log)
