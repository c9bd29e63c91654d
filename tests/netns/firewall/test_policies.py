"""Ingress policies: which pods reach which, as with the reference plugin."""

from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import pytest

from tests.netns.firewall.conftest import BOTH, NEWEST, Chain, MakeChain, Pod
from tests.pytest_netns import EchoServer, Namespace
from tests.pytest_netns.traffic import DOUBT_TIMEOUT, REPLY_TIMEOUT
from tests.pytest_netns.underlay import Family

Way = tuple[str, Namespace, EchoServer]

POLICIES = ["same-bridge", "same-bridge", "isolated", "isolated", "open", None]
"""Of pods 0 to 5; two of them are on each network but for the last two, which have one each."""
NETWORKS = [0, 0, 1, 1, 2, 3]


def attach(chain: Chain, kind: str) -> list[Pod]:
    keys = [{} if policy is None else {"ingressPolicy": policy} for policy in POLICIES]
    return [chain.add(n, kind, **k) for n, k in zip(NETWORKS, keys, strict=True)]


def ways(chain: Chain, pods: list[Pod], family: Family) -> Iterator[Way]:
    """Each "4: 0 -> 2", the namespace that it starts from, and the server that it leads to."""
    for number, pod in enumerate(pods):
        server = pod.ns.echo("tcp", pod.address(family))
        others = {str(n): other.ns for n, other in enumerate(pods) if n != number}
        for who, ns in {**others, "outside": chain.outside, "node": chain.node.ns}.items():
            yield f"{family}: {who} -> {number}", ns, server


def reached(chain: Chain, pods: list[Pod], wanted: Container[str]) -> set[str]:
    """Who reaches whom. All try at once, for who does not succeed waits: long where it must."""
    for pod in pods:
        chain.route_back(pod)
    tried = [way for family in BOTH for way in ways(chain, pods, family)]

    def succeeds(way: Way) -> bool:
        name, ns, server = way
        return ns.reaches(server, seconds=REPLY_TIMEOUT if name in wanted else DOUBT_TIMEOUT)

    with ThreadPoolExecutor(32) as threads:
        answers = threads.map(succeeds, tried)
        return {way[0] for way, answer in zip(tried, answers, strict=True) if answer}


def expected(*, isolated_pair: bool) -> set[str]:
    """Pods with a policy reach each other on one link alone, and all others."""
    found = set()
    for family in BOTH:
        for a, b in permutations(range(len(POLICIES)), 2):
            same = NETWORKS[a] == NETWORKS[b]
            policed = {POLICIES[a], POLICIES[b]} <= {"same-bridge", "isolated"}
            if not policed or (same and (POLICIES[a] == "same-bridge" or isolated_pair)):
                found.add(f"{family}: {a} -> {b}")
        for number in range(len(POLICIES)):
            found |= {f"{family}: {who} -> {number}" for who in ("outside", "node")}
    return found


@pytest.mark.needs("newest-reference")
@pytest.mark.parametrize("release", ["podwire", "newest"])
@pytest.mark.parametrize("filtered", ["0", "1"], ids=["routed", "bridge-nf-call-iptables"])
def test_between_bridges(make_chain: MakeChain, release: str, filtered: str) -> None:
    """filtered: whether what a bridge forwards passes the rules for IP."""
    chain = make_chain("podwire", release)
    for name in ("iptables", "ip6tables"):
        chain.node.ns.sysctl(f"bridge/bridge-nf-call-{name}", filtered)
    pods = attach(chain, "bridge")
    wanted = expected(isolated_pair=filtered == "0")
    assert reached(chain, pods, wanted) == wanted


@pytest.mark.needs("newest-reference")
@pytest.mark.parametrize("release", ["podwire", "newest"])
def test_between_routed_pairs(make_chain: MakeChain, release: str) -> None:
    """Each pair is a link of its own."""
    chain = make_chain("podwire", release)
    pods = [chain.add(0, "ptp", ingressPolicy=policy) for policy in ("same-bridge", "isolated")]
    pods.append(chain.add(0, "ptp"))
    policed = {f"{family}: {a} -> {b}" for family in BOTH for a, b in ((0, 1), (1, 0))}
    wanted = {way[0] for family in BOTH for way in ways(chain, pods, family)} - policed
    assert len(wanted) == len(BOTH) * (6 - 2 + 6)
    assert reached(chain, pods, wanted) == wanted


def test_the_last_pod_of_a_link_takes_its_policy_along(make_chain: MakeChain) -> None:
    chain = make_chain("podwire", "podwire")
    one, two = (chain.add(0, ingressPolicy="same-bridge") for _ in range(2))
    other, free = chain.add(1, ingressPolicy="isolated"), chain.add(2)
    server = other.ns.echo("tcp", other.address(4))
    assert chain.call("DEL", one, ingressPolicy="same-bridge").code == 0
    assert not two.ns.reaches(server)
    chain.node.ns.run(["nft", "flush chain inet podwire ingress_policies"])
    assert chain.call("CHECK", two, ingressPolicy="same-bridge").json["code"] == 102
    assert chain.call("ADD", two, ingressPolicy="same-bridge").code == 0
    assert chain.call("CHECK", two, ingressPolicy="same-bridge").code == 0
    assert not two.ns.reaches(server)
    assert chain.call("DEL", two).code == 0
    assert two.ns.exchange(server)
    chain.delete(other)
    elements = chain.node.ns.run(["nft", "list", "ruleset"]).stdout
    assert "br0" not in elements
    assert "br1" not in elements
    for pod in (free, one, two):
        chain.delete(pod)
    assert "podwire" not in chain.node.ns.run(["nft", "list", "ruleset"]).stdout


def test_a_list_that_begins_with_loopback(make_chain: MakeChain) -> None:
    """As Nomad's does. The policy is the bridge's, and no filter accepts loopback addresses."""
    chain = make_chain("podwire", "podwire")
    pod, keys = chain.add(0), {"ingressPolicy": "isolated"}
    interfaces, ips = pod.result["interfaces"], pod.result["ips"]
    lo = {"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": str(pod.ns.path)}
    own = [{"address": address, "interface": 0} for address in ("127.0.0.1/8", "::1/128")]
    moved = [{**ip, "interface": ip["interface"] + 1} for ip in ips]
    pod.result |= {"interfaces": [lo, *interfaces], "ips": [*own, *moved]}
    assert chain.call("ADD", pod, **keys).code == 0
    assert chain.call("CHECK", pod, **keys).code == 0
    assert '"br0"' in chain.node.ns.run(["nft", "list", "table", "inet", "podwire"]).stdout
    rules = chain.iptables("-S CNI-FORWARD")
    assert ips[0]["address"].partition("/")[0] in rules
    assert "127.0.0.1" not in rules
    assert "::1/128" not in rules
    chain.delete(pod, **keys)
    assert "podwire" not in chain.node.ns.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.parametrize("release", ["podwire", "debian", NEWEST])
def test_it_must_be_chained(make_chain: MakeChain, release: str) -> None:
    chain = make_chain("podwire", release)
    pod = chain.add()
    for verb in ("ADD", "CHECK"):
        alone = chain.call(verb, pod, prevResult=None)
        assert alone.code == 1
        assert "prevResult" in alone.json["msg"]
    assert chain.call("DEL", pod, prevResult=None).code == 0


REFUSED: tuple[dict[str, Any], ...] = (
    {"ingressPolicy": "closed"},
    {"ingressPolicy": 1},
    {"backend": 1},
    {"firewalldZone": []},
    {"iptablesAdminChainName": "-x"},
)


@pytest.mark.parametrize("release", ["podwire", "debian", NEWEST])
def test_what_is_refused(make_chain: MakeChain, release: str) -> None:
    """And podwire has changed nothing then."""
    chain = make_chain("podwire", release)
    pod = chain.add()
    chain.delete(pod)
    before = chain.node.ns.run(["nft", "list", "ruleset"]).stdout
    ips = [{"address": ip["address"]} for ip in pod.result["ips"]]
    nameless = {**pod.result, "interfaces": [], "ips": ips}
    unnamed: dict[str, Any] = {"ingressPolicy": "same-bridge", "prevResult": nameless}
    for keys in (*REFUSED, unnamed):
        refused = chain.call("ADD", pod, **keys)
        assert refused.code == 1, (keys, refused)
        if release == "podwire":
            name = next(iter(keys))
            assert (refused.json["code"], name in refused.json["msg"]) == (7, True), refused
            assert chain.node.ns.run(["nft", "list", "ruleset"]).stdout == before
