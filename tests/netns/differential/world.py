"""A node with an underlay of its own, and a case executed on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.netns.differential.cases import Case
from tests.pytest_netns import CniResult, Namespace, Node, Snapshot, Underlay, snapshot


@dataclass
class World:
    """One of two equal worlds; they differ in the directory that plugins are executed from."""

    underlay: Underlay
    node: Node
    plugins: Path
    make_pod: Callable[[], Namespace]
    settles: bool = False
    """Whether an attachment is ready only when no IPv6 address is tentative any more."""
    pods: list[Namespace] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def call(self, verb: str, case: Case, index: int, **more: Any) -> CniResult:
        """Execute the case's plugin for one of its pods; `more` is added to the configuration."""
        return self.node.cni(
            verb,
            self.plugins / case.plugin,
            {**case.conf(), **more},
            container_id=f"container{index}",
            netns=self.pods[index].path,
            args=case.args,
        )

    def add(self, case: Case) -> Namespace:
        """Attach one more pod; AssertionError if that fails."""
        self.pods.append(self.make_pod())
        answer = self.call("ADD", case, len(self.pods) - 1)
        assert answer.code == 0, answer
        self.results.append(answer.json)
        if self.settles:
            self.settle()
        return self.pods[-1]

    def settle(self) -> None:
        for ns in (self.node.ns, *self.pods):
            while any(link.get("addr_info") for link in ns.ip("-6 address show tentative")):
                time.sleep(0.05)

    def check(self, case: Case) -> list[str]:
        """CHECK every attachment: "ok", or what is wrong with it."""
        answers = [
            self.call("CHECK", case, index, prevResult=result)
            for index, result in enumerate(self.results)
        ]
        return [answer.json["msg"] if answer.code else "ok" for answer in answers]

    def delete(self, case: Case) -> None:
        """Detach every pod."""
        for index, result in enumerate(self.results):
            previous = {"prevResult": result} if case.version >= "0.4.0" else {}
            answer = self.call("DEL", case, index, **previous)
            assert answer.code == 0, answer


@dataclass(frozen=True)
class Observation:
    """What one plugin made of a case."""

    results: list[dict[str, Any]]
    pod_paths: list[str]
    bridge: str
    node: Snapshot
    pods: list[Snapshot]
    checks: list[str]
    node_after: Snapshot
    pods_after: list[Snapshot]


def observe(world: World, case: Case) -> Observation:
    """Attach the case's pods, check them, detach them, and look at the kernel in between."""
    for _ in range(case.pods):
        world.add(case)
    node, pods = snapshot(world.node.ns), [snapshot(pod) for pod in world.pods]
    checks = world.check(case) if case.version >= "0.4.0" else []
    world.delete(case)
    return Observation(
        results=world.results,
        pod_paths=[str(pod.path) for pod in world.pods],
        bridge=str(case.keys.get("bridge", "cni0")),
        node=node,
        pods=pods,
        checks=checks,
        node_after=snapshot(world.node.ns),
        pods_after=[snapshot(pod) for pod in world.pods],
    )
