"""Faults of nodes and pods: what brings each about, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.netns.doctor.conftest import World
from tests.netns.routing.conftest import DEVICE

Step = Callable[[World], object]


@dataclass(frozen=True)
class Fault:
    """words: of the first finding. inject, undo: commands on the first node, or functions.

    cuts_off: whether pods are, so that `status` fails. at: the number of the node whose doctor is
    asked.
    """

    inject: str | Step
    undo: str | Step
    words: tuple[str, ...]
    cuts_off: bool = True
    at: int = 1

    def bring_about(self, world: World) -> None:
        do(self.inject, world, self.at)

    def revert(self, world: World) -> None:
        do(self.undo, world, self.at)


def do(step: str | Step, world: World, at: int = 1) -> None:
    if callable(step):
        step(world)
        return
    names = {
        "link": world.link(at),
        "dev": DEVICE,
        "mac2": mac_of(world),
        "pod": pod_address(world),
    }
    for line in step.splitlines():
        world.member(at).node.run(["sh", "-c", line.strip().format_map(names)])


def mac_of(world: World) -> str:
    """The MAC of the second node's VTEP."""
    [link] = world.two.node.ip(f"link show {DEVICE}")
    return str(link["address"])


def pod_address(world: World) -> str:
    """The IPv4 address of the first node's pod."""
    found = world.pod.addresses("eth0")
    return next(a.partition("/")[0] for a in found if "." in a)


def in_pod(*commands: str) -> Step:
    """Commands of `ip` in the first node's pod."""
    return lambda world: [world.pod.run(["ip", *c.split()]) for c in commands]


def on(number: int, *argv: str) -> Step:
    """A command on a node."""
    return lambda world: world.member(number).node.run(argv)


def table(number: int, chain: str, *rules: str) -> Step:
    """A table of another program on a node."""
    lines = "\n".join(rules)
    text = f"table inet other {{\nchain c {{ type {chain};\n{lines}\n}}\n}}"
    return lambda world: world.member(number).node.run(["nft", "-f", "-"], stdin=text)


def no_table(number: int) -> Step:
    return on(number, "nft", "delete", "table", "inet", "other")
