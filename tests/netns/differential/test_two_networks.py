"""A container on two networks, each of which gets all of its port mappings, as runtimes do it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.differential.conftest import MakeWorld
from tests.netns.differential.port_cases import NODE4, NODE6, tcp
from tests.netns.differential.world import World
from tests.pytest_netns import CniResult, Namespace

SUBNETS = (("10.20.0.0/24", "2001:db8:20::/64"), ("10.30.0.0/24", "2001:db8:30::/64"))
MAPPINGS = {
    "every address": [tcp(8080, 80)],
    "one address": [tcp(8080, 80, hostIP=NODE4), tcp(8080, 80, hostIP=NODE6)],
    "both": [tcp(8080, 80), tcp(8080, 80, hostIP=NODE4), tcp(8080, 80, hostIP=NODE6)],
}
Previous = dict[str, Any]


@dataclass
class Container:
    """A pod that is attached to the networks of SUBNETS; link and network have the same number."""

    world: World
    mappings: list[dict[str, Any]]
    results: list[Previous] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pod: Namespace = self.world.make_pod()

    def _call(self, verb: str, plugin: str, number: int, **more: Any) -> CniResult:
        conf = {"cniVersion": "1.0.0", "name": f"net{number}", "type": plugin, **more}
        return self.world.node.cni(
            verb, self.world.plugins / plugin, conf, netns=self.pod.path, ifname=f"eth{number}"
        )

    def _main(self, verb: str, number: int) -> CniResult:
        ranges = [[{"subnet": subnet}] for subnet in SUBNETS[number]]
        ipam = {"type": "host-local", "ranges": ranges}
        keys = {"bridge": f"cni{number}", "isGateway": True}
        return self._call(verb, "bridge", number, ipam=ipam, **keys)

    def _ports(self, verb: str, number: int, previous: Previous) -> CniResult:
        runtime = {"portMappings": self.mappings}
        return self._call(verb, "portmap", number, runtimeConfig=runtime, prevResult=previous)

    def add(self, number: int) -> bool:
        """Attach it; whether portmap succeeded."""
        first = self._main("ADD", number)
        assert first.code == 0, first
        self.results.append(first.json)
        for ip in first.json["ips"]:
            address, gateway = ip["address"].partition("/")[0], ip["gateway"]
            family, table = "-6" if ":" in address else "-4", str(100 + number)
            route = ["default", "via", gateway, "dev", f"eth{number}", "table", table]
            self.pod.run(["ip", family, "rule", "add", "from", address, "lookup", table])
            self.pod.run(["ip", family, "route", "add", *route])
        return self._ports("ADD", number, first.json).code == 0

    def check(self, number: int) -> bool:
        return self._ports("CHECK", number, self.results[number]).code == 0

    def delete(self, number: int) -> bool:
        """As runtimes do: the last of the chain first."""
        ended = [self._ports("DEL", number, self.results[number]), self._main("DEL", number)]
        return [answer.code for answer in ended] == [0, 0]

    def answering(self) -> set[tuple[str, int]]:
        """The node's addresses whose port leads to the container, and by which network."""
        return set(self._answering())

    def _answering(self) -> Iterator[tuple[str, int]]:
        here = {a["local"] for link in self.pod.ip("address show") for a in link["addr_info"]}
        for number, result in enumerate(self.results):
            for ip in result["ips"]:
                address = ip["address"].partition("/")[0]
                if address in here:
                    to = NODE6 if ":" in address else NODE4
                    server = self.pod.echo("tcp", address, 80)
                    if self.world.underlay.ns.reaches(server, to=(to, 8080)):
                        yield to, number
                    server.close()


def observe(world: World, mappings: list[dict[str, Any]], order: tuple[int, ...]) -> list[Any]:
    """What a user sees, from the first attachment to the last."""
    container = Container(world, mappings)
    seen: list[Any] = [container.add(0), container.add(1)]
    world.pods = [container.pod]
    world.settle()
    seen += [container.check(0), container.check(1), container.answering()]
    for number, other in (order, order[::-1]):
        seen += [container.delete(number), container.answering()]
        if len(seen) == 7:
            seen.append(container.check(other))
    return seen


@pytest.mark.needs("newest-reference")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first goes first", "second goes first"])
@pytest.mark.parametrize("ports", MAPPINGS)
def test_the_first_network_answers_and_then_the_other(
    make_world: MakeWorld,
    newest_reference_bin: Path,
    podwire_bin: Path,
    ports: str,
    order: tuple[int, int],
) -> None:
    """The reference's chains of rules, and a map with one element of a key, do the same."""
    theirs, ours = (
        observe(make_world(plugins), MAPPINGS[ports], order)
        for plugins in (newest_reference_bin, podwire_bin)
    )
    nodes = (NODE4, NODE6)
    first, left = ({(node, number) for node in nodes} for number in (0, order[1]))
    expected = [True, True, True, True, first, True, left, True, True, set()]
    assert theirs == expected, "the reference"
    assert ours == expected
