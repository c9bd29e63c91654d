"""Pods' addresses in a zone of firewalld: a real one, on a system bus of the node's own."""

from pathlib import Path

import pytest

from tests.netns.firewall.conftest import BOTH, NEWEST, Chain, MakeChain, Pod
from tests.pytest_netns.firewalld import NAME, call, firewalld

pytestmark = pytest.mark.needs("firewalld")

RELEASES = ["podwire", "debian", NEWEST]


def sources(chain: Chain, zone: str = "trusted") -> set[str]:
    return set(call(chain.node, "getSources", "s", zone).split('"')[1::2])


def expected(pod: Pod) -> set[str]:
    return {f"{pod.address(4)}/32", f"{pod.address(6)}/128"}


@pytest.mark.parametrize("backend", ["", "firewalld"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_source_of_a_zone(
    make_chain: MakeChain, tmp_path: Path, release: str, backend: str
) -> None:
    """Where firewalld runs it is the default."""
    chain = make_chain("podwire", release)
    with firewalld(chain.node, tmp_path):
        pod = chain.add(backend=backend)
        assert sources(chain) == expected(pod)
        for family in BOTH:
            assert chain.leaves(pod, family)
        assert chain.call("CHECK", pod, backend=backend).code == 0
        assert chain.call("ADD", pod, backend=backend).code == 0
        assert "CNI-FORWARD" not in chain.iptables("-S")
        assert chain.call("DEL", pod, backend=backend).code == 0
        assert sources(chain) == set()
        assert chain.call("DEL", pod, backend=backend).code == 0


@pytest.mark.parametrize("release", RELEASES)
def test_another_zone(make_chain: MakeChain, tmp_path: Path, release: str) -> None:
    chain = make_chain("podwire", release)
    with firewalld(chain.node, tmp_path):
        pod = chain.add(firewalldZone="internal")
        assert sources(chain, "internal") == expected(pod)
        refused = chain.call("ADD", pod, firewalldZone="nosuch")
        assert refused.code == 1
        assert "INVALID_ZONE" in refused.json["msg"]


def test_a_source_that_is_lost(make_chain: MakeChain, tmp_path: Path) -> None:
    """A reload forgets sources that are not in firewalld's own configuration."""
    chain = make_chain("podwire", "podwire")
    with firewalld(chain.node, tmp_path):
        pod = chain.add()
        call(chain.node, "removeSource", "ss", "trusted", f"{pod.address(4)}/32")
        check = chain.call("CHECK", pod)
        assert check.json["code"] == 102
        assert f"acceptance of {pod.address(4)} by" in check.json["msg"]
        call(chain.node, "reload", interface=NAME)
        check = chain.call("CHECK", pod)
        assert f"acceptance of {pod.address(4)}, {pod.address(6)} by" in check.json["msg"]
    chain.delete(pod)


def test_backends_that_are_chosen(make_chain: MakeChain, tmp_path: Path) -> None:
    chain = make_chain("podwire", "podwire")
    pod = chain.add(backend="iptables")
    refused = chain.call("ADD", pod, backend="firewalld")
    assert refused.code == 1
    assert "trusted" in refused.json["msg"]
    with firewalld(chain.node, tmp_path):
        assert chain.call("ADD", pod, backend="iptables").code == 0
        assert sources(chain) == set()
        assert f"-s {pod.address(4)}/32 -j ACCEPT" in chain.iptables("-S")
