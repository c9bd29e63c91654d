"""Firewalls of other programs on the node itself are named before a peer is blamed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.netns.health.conftest import Grow, allow_again, expect, expect_well, nft
from tests.netns.routing.conftest import STATUS, Member, eventually
from tests.pytest_netns.firewalld import call, firewalld
from tests.pytest_netns.tools import PROGRAMS

OWN = "this node's own firewall drops "


def has_finding(member: Member, *words: str) -> object:
    """True where a finding has all these words."""
    found = member.status()["troubles"]
    return any(all(word in text for word in words) for text in found) or (found, member.log)


def is_ok(member: Member) -> object:
    return member.status()["ok"] or (member.status()["troubles"], member.log)


def is_journaled(member: Member, actions: list[str]) -> object:
    found = member.history("firewall of this node")
    return [record["action"] for record in found] == actions or (found, member.log)


@pytest.mark.parametrize("program", ["nft", "iptables-nft"])
def test_a_drop_on_the_forwarding_path_is_a_finding(grow: Grow, program: str) -> None:
    one, two = grow()
    if program == "nft":
        nft(one, "forward ip saddr 10.244.0.0/16 drop")
        where = "of chain forward of table inet test"
    else:
        one.node.run([program, "-P", "FORWARD", "DROP"])
        where = "the policy of chain FORWARD of table ip filter"
    eventually(partial(has_finding, one, OWN, "pods send", where))
    done = one.node.run([one.podwirectl, "status", "--file", STATUS], check=False)
    assert done.returncode == 1
    assert "node        node-1 is NOT in sync\n" in done.stdout
    expect_well([one, two])
    eventually(partial(is_ok, two))
    if program == "nft":
        allow_again(one)
    else:
        one.node.run([program, "-A", "FORWARD", "-s", "10.244.0.0/16", "-j", "ACCEPT"])
    eventually(partial(is_ok, one))
    eventually(partial(is_journaled, one, ["failed", "ended"]))


@pytest.mark.parametrize("hook", ["input", "output"])
def test_a_drop_of_the_overlay_is_not_blamed_on_the_peer(grow: Grow, hook: str) -> None:
    one, two = grow()
    nft(one, f"{hook} udp dport 8472 drop")
    eventually(partial(has_finding, one, OWN, "VXLAN (UDP port 8472)", f"chain {hook} of table"))
    expect(one, two, "one-way", OWN, f"chain {hook} of table inet test")
    assert not [text for text in one.status()["troubles"] if "let UDP" in text]
    allow_again(one)
    expect_well([one, two])
    eventually(partial(is_ok, one))


def test_a_rule_for_new_connections_does_not_accept_the_overlay(grow: Grow) -> None:
    """podwire keeps VXLAN out of tracking, so it is untracked; the peer does nothing wrong."""
    one, two = grow()
    rules = "policy drop; iif lo accept; ct state established,related accept"
    rules += "; icmpv6 type 130-136 accept; udp dport 8473 accept"
    nft(one, f"input {rules}; ct state new udp dport 8472 accept")
    eventually(partial(has_finding, one, OWN, "VXLAN (UDP port 8472)", "policy of chain input"))
    eventually(partial(has_finding, one, OWN, "without `ct state new`, as it is untracked"))
    expect(one, two, "one-way", OWN, "the policy of chain input of table inet test")
    allow_again(one)
    nft(one, f"input {rules}; ct state new,untracked udp dport 8472 accept")
    expect_well([one, two])
    eventually(partial(is_ok, one))


def test_a_change_of_a_set_is_followed_at_once(grow: Grow) -> None:
    """Long before what is evaluated each minute."""
    one, _two = grow()
    rules = "type filter hook input priority 0; udp dport @blocked drop;"
    blocked = "set blocked { type inet_service; elements = { 53, 8472 }; }"
    script = f"table inet test {{\n{blocked}\nchain input {{ {rules} }}\n}}\n"
    one.node.run(["nft", "-f", "-"], stdin=script)
    eventually(partial(has_finding, one, OWN, "VXLAN (UDP port 8472)", "chain input of table"))
    one.node.run(["nft", "delete element inet test blocked { 8472 }"])
    eventually(lambda: OWN not in str(one.status()["troubles"]) or one.status(), seconds=30)
    one.node.run(["nft", "add element inet test blocked { 8472 }"])
    eventually(partial(has_finding, one, OWN, "VXLAN (UDP port 8472)"), seconds=30)


@pytest.mark.needs("firewalld")
def test_firewalld_with_its_default_zone(grow: Grow, tmp_path: Path) -> None:
    """Its rules begin with `ct state { established, related } accept`: a set without a name."""
    one, two = grow()
    chain = "chain filter_IN_public of table inet firewalld"
    with firewalld(one.node, tmp_path):
        eventually(partial(has_finding, one, OWN, "VXLAN (UDP port 8472) from peers", chain))
        expect(one, two, "one-way", OWN, chain)
        assert chain in one.node.run([one.podwirectl, "doctor"], check=False).stdout
        for port in ("8472", "8473"):
            call(one.node, "addPort", "sssi", "public", port, "udp", "0")
        expect_well([one, two])
        forward = "chain filter_FWD_public of table inet firewalld"
        eventually(partial(has_finding, one, OWN, "pods", forward))
        for prefix in ("10.244.0.0/16", "fd00:10:244::/48"):
            call(one.node, "addSource", "ss", "trusted", prefix)
        eventually(partial(is_ok, one))


def test_ufw_with_its_defaults(grow: Grow, tmp_path: Path) -> None:
    """It asks what kind of address a packet goes to before its own rules."""
    one, two = grow()

    def ufw(command: str) -> None:
        one.node.run([str(PROGRAMS / "ufw"), str(tmp_path / "ufw"), *command.split()])

    ufw("--force enable")
    try:
        eventually(partial(has_finding, one, OWN, "VXLAN (UDP port 8472) from peers"))
        expect(one, two, "one-way", OWN, "the policy of chain INPUT of table ip filter")
        ufw("allow 8472:8473/udp")
        expect_well([one, two])
        eventually(partial(has_finding, one, OWN, "pods", "the policy of chain FORWARD"))
        for prefix in ("10.244.0.0/16", "fd00:10:244::/48"):
            ufw(f"route allow from {prefix}")
            ufw(f"route allow to {prefix}")
        eventually(partial(is_ok, one))
    finally:
        ufw("disable")
