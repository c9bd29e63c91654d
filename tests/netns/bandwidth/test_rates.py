"""What a pod receives and sends is limited, by whichever plugins, and alike."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.bandwidth.limits import EGRESS, INGRESS, LIMITS, passing
from tests.netns.robustness.confs import ipam, netconf
from tests.pytest_netns import Namespace, Node
from tests.pytest_netns.traffic import Protocol

DEBIAN = Path("/usr/lib/cni")
ATTEMPTS = 20
"""On a busy machine a sender may be late, which counts too little, or a receiver, whose socket then
holds what came before the count began."""
PLUGINS = [
    pytest.param(pair, id="-".join(pair), marks=marks)
    for pair, *marks in (
        (("native", "ptp"),),
        (("native", "bridge"),),
        (("podwire", "podwire"),),
        (("debian", "podwire"),),
        (("debian", "debian"),),
        (("newest", "newest"), pytest.mark.needs("newest-reference")),
    )
]
"""podwire alone, or the folders of a chain's first plugin and of its second."""
FLOWS: list[tuple[str, Protocol, int]] = [
    ("receives", "tcp", 4), ("receives", "udp", 6), ("sends", "udp", 4), ("sends", "tcp", 6),
]  # fmt: skip


@pytest.fixture
def programs(request: pytest.FixtureRequest, podwire_bin: Path) -> Callable[[str], Path]:
    """The folder of plugins of that name."""

    def find(name: str) -> Path:
        if name == "newest":
            found = request.getfixturevalue("newest_reference_bin")
            assert isinstance(found, Path)
            return found
        return DEBIAN if name == "debian" else podwire_bin

    return find


Attach = Callable[[Namespace, dict[str, int]], dict[str, Any]]


@pytest.fixture(params=PLUGINS)
def attach(
    request: pytest.FixtureRequest, node: Node, programs: Callable[[str], Path]
) -> Iterator[Attach]:
    """Attaches a pod with limits; the result. Both calls' DEL come at the end."""
    first, second = request.param
    undo: list[Callable[[], None]] = []

    def call(verb: str, plugin: Path, conf: dict[str, Any], pod: Namespace) -> dict[str, Any]:
        answer = node.cni(verb, plugin, conf, netns=pod.path)
        assert answer.code == 0, answer
        undo.append(lambda: None if verb == "DEL" else (call("DEL", plugin, conf, pod), None)[1])
        return answer.json if verb == "ADD" else {}

    def make(pod: Namespace, limits: dict[str, int]) -> dict[str, Any]:
        if first == "native":
            conf = netconf(second, (4, 6), runtimeConfig={"bandwidth": limits})
            return call("ADD", programs("podwire") / "podwire", conf, pod)
        conf = {"cniVersion": "1.0.0", "name": "chain", "type": "bridge", "isGateway": True}
        conf |= {"ipam": {"type": "host-local", **ipam(4, 6)}}
        result = call("ADD", programs(first) / "bridge", conf, pod)
        chained = {"cniVersion": "1.0.0", "name": "chain", "type": "bandwidth", **limits}
        return call("ADD", programs(second) / "bandwidth", {**chained, "prevResult": result}, pod)

    yield make
    for step in reversed(undo):
        step()


def addresses(result: dict[str, Any]) -> dict[int, str]:
    found = (ip["address"].partition("/")[0] for ip in result["ips"])
    return {6 if ":" in address else 4: address for address in found}


GATEWAYS = {4: "10.77.0.1", 6: "fd00:77::1"}


def test_limits(node: Node, pod: Namespace, attach: Attach) -> None:
    own = addresses(attach(pod, LIMITS))
    for direction, protocol, family in FLOWS:
        if direction == "receives":
            flow, limit = (node.ns, pod, own[family], protocol), INGRESS
        else:
            flow, limit = (pod, node.ns, GATEWAYS[family], protocol), EGRESS
        rates: list[float] = []
        while len(rates) < ATTEMPTS and not (rates and kept(limit, rates[-1])):
            rates.append(passing(*flow))
        assert kept(limit, rates[-1]), (direction, protocol, rates)


def kept(limit: int, rate: float) -> bool:
    return limit * 0.6 < rate < limit * 1.05


@pytest.mark.parametrize("limited", ["ingress", "egress"])
def test_the_other_direction_is_free(
    node: Node, pod: Namespace, attach: Attach, limited: str
) -> None:
    limits = {key: value for key, value in LIMITS.items() if key.startswith(limited)}
    own = addresses(attach(pod, limits))
    free = (node.ns, pod, own[4]) if limited == "egress" else (pod, node.ns, GATEWAYS[4])
    rates: list[float] = []
    while len(rates) < ATTEMPTS and not (rates and rates[-1] > 5 * max(INGRESS, EGRESS)):
        rates.append(passing(*free, "tcp"))
    assert rates[-1] > 5 * max(INGRESS, EGRESS), rates
