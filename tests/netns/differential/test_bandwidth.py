"""`bandwidth` has the results of the reference's, and gives the kernel the same numbers."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.bandwidth.limits import LIMITS, qdiscs, redirections
from tests.pytest_netns import CniResult, Namespace, Node

DEBIAN = Path("/usr/lib/cni")
MakeNode = Callable[[], Node]
MakePod = Callable[[], Namespace]

RECEIVED = {"ingressRate": 1_000_000, "ingressBurst": 1_000_000}
SENT = {"egressRate": 3_000_001, "egressBurst": 800_007}
CAPABILITY = {"runtimeConfig": {"bandwidth": LIMITS}}
CASES: dict[str, dict[str, Any]] = {
    "both": LIMITS,
    "received": RECEIVED,
    "sent, no multiples of 8": SENT,
    "capability": CAPABILITY,
    "keys of its own beside the capability": {**CAPABILITY, **RECEIVED},
    "zeros of its own beside the capability": {**CAPABILITY, "egressRate": 0},
    "null of its own beside the capability": {**CAPABILITY, "ingressBurst": None},
    "null as capability": {"runtimeConfig": {"bandwidth": None}},
    "zeros": dict.fromkeys(LIMITS, 0),
    "nothing": {},
    "the burst of container runtimes": {"ingressRate": 10**9, "ingressBurst": 2**31 - 1},
    "more than 32 bits of bytes a second": {"egressRate": 40 * 10**9, "egressBurst": 2**31 - 1},
    "keys in other letters": {"INGRESSRATE": 10**6, "ingressburst": 10**6},
    "keys that are gone": {**LIMITS, "unshapedSubnets": ["10.0.0.0/8"]},
    "version 0.3.1": {**LIMITS, "cniVersion": "0.3.1"},
    "version 0.4.0": {**LIMITS, "cniVersion": "0.4.0"},
}
WRONG: dict[str, dict[str, Any]] = {
    "a rate alone": {"ingressRate": 10**6},
    "a burst alone": {"egressBurst": 10**6},
    "a negative number": {**LIMITS, "egressRate": -1},
    "a fraction": {**LIMITS, "egressRate": 1.5},
    "text": {"runtimeConfig": {"bandwidth": {**LIMITS, "ingressBurst": "1M"}}},
    "4 GB": {**LIMITS, "ingressBurst": 8 * (2**32 - 1)},
    "less than a byte a second": {"ingressRate": 7, "ingressBurst": 10**6},
    "less than a byte": {"ingressRate": 10**6, "ingressBurst": 7},
    "no result before": {**LIMITS, "prevResult": None},
    "no pair in the result before": {**LIMITS, "prevResult": {"cniVersion": "1.0.0", "ips": []}},
}


@dataclass
class Chain:
    """A pod that the reference's bridge has attached, and a plugin behind that."""

    node: Node
    pod: Namespace
    plugin: Path
    main: dict[str, Any] = field(default_factory=dict)

    def attach(self, version: str) -> None:
        ipam = {"type": "host-local", "ranges": [[{"subnet": "10.20.0.0/24"}]]}
        conf: dict[str, Any] = {"cniVersion": version, "name": "chain", "type": "bridge"}
        conf |= {"isGateway": True, "ipam": ipam}
        answer = self.node.cni("ADD", DEBIAN / "bridge", conf, netns=self.pod.path)
        assert answer.code == 0, answer
        self.main = answer.json

    def call(self, verb: str, keys: dict[str, Any], plugin: Path | None = None) -> CniResult:
        conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "chain", "type": "bandwidth"}
        conf |= {"prevResult": self.main, **keys}
        where = self.plugin if plugin is None else plugin
        return self.node.cni(verb, where / "bandwidth", conf, netns=self.pod.path)

    @property
    def host(self) -> str:
        return str(self.main["interfaces"][1]["name"])

    def state(self) -> dict[str, Any]:
        """What the kernel has; the host's link goes by that name."""
        found = qdiscs(self.node.ns)
        return {
            "qdiscs": {name.replace(self.host, "host"): each for name, each in found.items()},
            # The reference has the action twice; the first one takes the packet.
            "redirected": redirections(self.node.ns, self.host)[:1],
            "devices": [link["ifname"] for link in self.node.ip("link show type ifb")],
        }

    def observe(self, keys: dict[str, Any]) -> list[Any]:
        """Result, kernel, CHECK, what DEL leaves."""
        self.attach(keys.get("cniVersion", "1.0.0"))
        added = self.call("ADD", keys)
        assert added.code == 0, added
        seen = [self.plain(added.json), self.state()]
        if keys.get("cniVersion") != "0.3.1":
            checked = self.call("CHECK", {**keys, "prevResult": added.json})
            seen.append(checked.code)
        deleted = self.call("DEL", {**keys, "prevResult": added.json})
        return [*seen, deleted.code, self.state()["devices"]]

    def plain(self, result: dict[str, Any]) -> Any:
        """A result without what is different in each namespace."""
        text = json.dumps({"dns": {}, **result}, sort_keys=True).replace(self.host, "host")
        text = text.replace(str(self.pod.path), "pod")
        return json.loads(re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text))


@pytest.fixture(
    params=["debian", pytest.param("newest", marks=pytest.mark.needs("newest-reference"))]
)
def reference(request: pytest.FixtureRequest) -> Path:
    """A folder with the reference's plugins."""
    if request.param == "debian":
        return DEBIAN
    found = request.getfixturevalue("newest_reference_bin")
    assert isinstance(found, Path)
    return found


MakeChain = Callable[[Path], Chain]


@pytest.fixture
def make_chain(make_node: MakeNode, make_pod: MakePod) -> MakeChain:
    """Makes nodes with a pod that are all alike."""
    return lambda plugin: Chain(make_node(), make_pod(), plugin)


@pytest.mark.parametrize("case", CASES)
def test_the_same(make_chain: MakeChain, podwire_bin: Path, reference: Path, case: str) -> None:
    keys = CASES[case]
    ours, theirs = (make_chain(p).observe(keys) for p in (podwire_bin, reference))
    if case in ("nothing", "null as capability") and reference == DEBIAN:
        assert theirs[2] == 2, "release 1.1.1 panics in CHECK where there is nothing to compare"
        theirs[2] = 0
    assert ours == theirs


@pytest.mark.parametrize("case", WRONG)
def test_both_refuse(make_chain: MakeChain, podwire_bin: Path, reference: Path, case: str) -> None:
    for plugin in (podwire_bin, reference):
        chain = make_chain(plugin)
        chain.attach("1.0.0")
        before = chain.state()
        answer = chain.call("ADD", WRONG[case])
        assert answer.code == 1, (plugin, answer)
        assert answer.json["msg"]
        if plugin == podwire_bin:
            assert answer.json["code"] in (7, 101)
            assert chain.state() == before


def test_each_serves_what_the_other_has_made(
    make_chain: MakeChain, podwire_bin: Path, reference: Path
) -> None:
    """A node changes its plugins while pods run."""
    for first, second in ((podwire_bin, reference), (reference, podwire_bin)):
        chain = make_chain(first)
        chain.attach("1.0.0")
        result = chain.call("ADD", LIMITS).json
        again = {**LIMITS, "prevResult": result}
        checked = chain.call("CHECK", again, second)
        assert checked.code == 0, (second, checked)
        assert chain.call("DEL", again, second).code == 0
        assert chain.state()["devices"] == []
        assert chain.call("DEL", again, first).code == 0
