"""Pods' packets pass a filter of iptables that drops: of either flavour, of both families."""

import pytest

from tests.netns.firewall.conftest import BOTH, NEWEST, MakeChain, MakePlugins

RELEASES = ["podwire", "debian", NEWEST]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_policy_that_drops(make_chain: MakeChain, release: str, kind: str, when: str) -> None:
    """Set before the pod or after it: what the pod opens passes, what others open does not."""
    chain = make_chain("podwire", release)
    if when == "before":
        chain.drop_forwarded()
    pod = chain.add(kind=kind)
    chain.drop_forwarded()
    for family in BOTH:
        assert chain.leaves(pod, family)
        assert not chain.enters(pod, family, seconds=2)
    assert chain.call("CHECK", pod).code == 0
    assert chain.call("DEL", pod).code == 0
    for family in BOTH:
        assert not chain.leaves(pod, family, seconds=2)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_either_flavour(make_chain: MakeChain, flavour: str) -> None:
    chain = make_chain("podwire", "podwire")
    chain.drop_forwarded(flavour)
    pod, other = chain.add(), chain.add()
    for family in BOTH:
        assert chain.leaves(pod, family)
    chain.iptables("-F CNI-FORWARD", flavour)
    damaged = chain.call("CHECK", pod)
    assert damaged.json["code"] == 102
    assert f"acceptance of {pod.address(4)}, {pod.address(6)} by the" in damaged.json["msg"]
    assert chain.call("ADD", pod).code == 0
    assert chain.call("CHECK", pod).code == 0
    chain.delete(pod)
    chain.delete(other)
    assert "CNI" not in chain.iptables("-S", flavour)
    assert chain.iptables("-S FORWARD", flavour) == "-P FORWARD DROP\n" * 2


@pytest.mark.parametrize("release", RELEASES)
def test_the_administrators_chain(make_chain: MakeChain, release: str) -> None:
    chain = make_chain("podwire", release)
    chain.drop_forwarded()
    pod = chain.add(iptablesAdminChainName="MINE")
    assert chain.leaves(pod, 4)
    gateway = chain.node.underlay.gateway(4)
    chain.node.ns.run(["iptables", "-A", "MINE", "-d", gateway, "-j", "REJECT"])
    assert not chain.leaves(pod, 4, seconds=2)
    assert chain.leaves(pod, 6)
    chain.delete(pod, iptablesAdminChainName="MINE")
    assert gateway in chain.iptables("-S")


def test_rules_of_others_stay(make_chain: MakeChain) -> None:
    """Also the administrator's in chains that podwire made, and those of the reference."""
    chain = make_chain("podwire", "podwire")
    for command in ("-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN"):
        chain.iptables(command)
    pod = chain.add()
    chain.iptables("-A CNI-ADMIN -j RETURN")
    before = chain.iptables("-S")
    other = chain.add()
    chain.delete(other)
    assert chain.iptables("-S") == before
    chain.delete(pod)
    left = [line for line in chain.iptables("-S").splitlines() if "CNI-FORWARD" not in line]
    assert left == [line for line in before.splitlines() if "CNI-FORWARD" not in line]
    assert "CNI-FORWARD" not in chain.iptables("-S")


@pytest.mark.parametrize("release", ["debian", NEWEST])
@pytest.mark.parametrize("mains", ["podwire", "debian"])
def test_switching_to_podwire_and_back(
    make_chain: MakeChain, make_plugins: MakePlugins, mains: str, release: str
) -> None:
    """With pods running: each checks and deletes what the other has made."""
    chain = make_chain(mains, release)
    reference, podwire = chain.plugins, make_plugins(mains, "podwire")
    chain.drop_forwarded()
    early, stays = chain.add(), chain.add()
    chain.plugins = podwire
    late = chain.add()
    assert chain.call("CHECK", early).code == 0
    chain.delete(early)
    chain.delete(early)
    chain.plugins = reference
    assert chain.call("CHECK", late).code == 0
    chain.delete(late)
    for family in BOTH:
        assert chain.leaves(stays, family)
        for gone in (early, late):
            assert f"{gone.address(family)}/" not in chain.iptables("-S")
    chain.plugins = podwire
    chain.delete(stays)
    assert "CNI-FORWARD" not in chain.iptables("-S")


def test_an_address_that_another_pod_has_by_now(make_chain: MakeChain) -> None:
    chain = make_chain("podwire", "podwire")
    chain.drop_forwarded()
    first, second = chain.add(), chain.add()
    first.result = second.result
    chain.delete(first)
    assert chain.call("DEL", first).code == 0
    assert chain.leaves(second, 4)
