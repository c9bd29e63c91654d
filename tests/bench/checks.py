"""That the work was done: the pod has traffic after ADD, and nothing is left after DEL."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from tests.bench.contender import Attached, Contender
from tests.bench.results import FLOOR
from tests.bench.world import World
from tests.pytest_netns.node import SEARCH_PATH
from tests.pytest_netns.underlay import Family

ATTEMPTS = 3
"""Exchanges until a pod counts as without traffic; a first packet may be lost to a neighbour."""


class CheckFailed(Exception):
    """A contender said that it had done something, and had not."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a node has while none of the measured pods is attached."""

    links: frozenset[str]
    rules: str


def read_baseline(contender: Contender) -> Baseline:
    """The node's links and rules as they are."""
    return contender.host.call(_read)


def _read() -> Baseline:
    links = frozenset(name for _, name in socket.if_nameindex())
    # Rules of iptables' nft variant are in there, too; -s leaves out counters.
    done = subprocess.run(
        ["nft", "-s", "list", "ruleset"], env={"PATH": SEARCH_PATH}, capture_output=True, check=True
    )
    return Baseline(links, done.stdout.decode())


def check_attached(world: World, contender: Contender, attached: Attached) -> None:
    """Raise CheckFailed unless the pod has traffic, from the right address."""
    versions = sorted(ip_address(a).version for a in attached.addresses)
    if versions != sorted(contender.network.families):
        raise _failed(contender, f"the pod has addresses {attached.addresses}")
    for address in attached.addresses:
        family: Family = 6 if ip_address(address).version == 6 else 4
        _check_traffic(world, contender, attached, family, address)


def _check_traffic(
    world: World, contender: Contender, attached: Attached, family: Family, address: str
) -> None:
    server, source = contender.host.servers[family], address
    if contender.network.masquerade and contender.label != FLOOR:
        server, source = world.outside[family], contender.host.node.address(family)
    for attempt in range(ATTEMPTS):
        try:
            seen = attached.pod.exchange(server)
            break
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise _failed(
                    contender, f"pod {address} does not reach {server.listens[0]}: {error}"
                ) from error
    if seen != source:
        raise _failed(contender, f"pod {address} was seen as {seen}, not as {source}")


def check_distinct(contender: Contender, attached: Sequence[Attached]) -> None:
    """Raise CheckFailed if two pods have one address."""
    addresses = [address for one in attached for address in one.addresses]
    if len(set(addresses)) != len(addresses):
        raise _failed(contender, "two pods of a burst have the same address")


def check_gone(contender: Contender, baseline: Baseline, attached: Sequence[Attached]) -> None:
    """Raise CheckFailed if pods that were detached left something."""
    found = [f"allocation {held}" for one in attached for held in contender.holds(one)]
    found += [f"{one.pod}: {name}" for one in attached for name in one.pod.links() - {"lo"}]
    now = read_baseline(contender)
    found += [f"link {name} on the node" for name in sorted(now.links - baseline.links)]
    if now.rules != baseline.rules:
        before = set(baseline.rules.splitlines())
        found += [f"rule {line.strip()}" for line in now.rules.splitlines() if line not in before]
        found = found or ["rules other than before"]
    if found:
        raise _failed(contender, f"DEL left {'; '.join(found[:8])}")


def _failed(contender: Contender, what: str) -> CheckFailed:
    return CheckFailed(f"{contender.label}, {contender.network.case}: {what}")
