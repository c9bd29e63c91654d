"""A contender that executes some plugins for each pod, one after the other, as libcni does."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from tests.bench import spawn
from tests.bench.contender import AT_ONCE, IFNAME, Attached, Burst, CallFailed, Contender, Cost
from tests.bench.daemon import Daemon
from tests.bench.ledger import Ledger
from tests.bench.networks import Conf, Network
from tests.bench.spawn import Command, Exit, Job
from tests.bench.world import Host, Pod, World
from tests.pytest_netns.node import SEARCH_PATH

POD_PORTS = (80, 443)
_FIRST, _PODS = 20_000, 20_000
"""The first host port, and how many containers have ports of their own."""

Step = tuple[Path, Callable[[int], Conf]]
"""A plugin's program, and its configuration by the container's number."""


def mappings(number: int) -> list[dict[str, Any]]:
    """The mapped ports of a container."""
    return [
        {"hostPort": host_port(number, place), "containerPort": port, "protocol": "tcp"}
        for place, port in enumerate(POD_PORTS)
    ]


def host_port(number: int, place: int = 0) -> int:
    """The node's port that leads to one of a container's."""
    return _FIRST + number % _PODS * len(POD_PORTS) + place


class Chain(Contender):
    """Plugins that are executed one after the other, and in DEL the other way round."""

    def __init__(
        self,
        label: str,
        host: Host,
        network: Network,
        *,
        world: World,
        steps: Sequence[Step],
        ledger: Ledger,
        env: Mapping[str, str] | None = None,
        daemon: Daemon | None = None,
    ) -> None:
        super().__init__(label, host, network)
        self._world, self._steps, self._ledger, self.daemon = world, steps, ledger, daemon
        path = str(steps[0][0].parent)
        self._env = {"PATH": SEARCH_PATH, "CNI_PATH": path, **(env or {})}

    def add(self, pod: Pod) -> tuple[Attached, Cost]:
        (attached,), burst = self.add_many([pod])
        return attached, Cost(sum(burst.each), burst.cpu)

    def delete(self, attached: Attached) -> Cost:
        burst = self.delete_many([attached])
        return Cost(sum(burst.each), burst.cpu)

    def add_many(self, pods: Sequence[Pod]) -> tuple[list[Attached], Burst]:
        named = [(pod, self.next_id()) for pod in pods]
        burst, ends = self._run([self._adding(*one) for one in named])
        return [self._attached(*n, e) for n, e in zip(named, ends, strict=True)], burst

    def delete_many(self, attached: Sequence[Attached]) -> Burst:
        burst, ends = self._run([self._deleting(one) for one in attached])
        for exits in ends:
            self._check("DEL", exits)
        return burst

    def holds(self, attached: Attached) -> list[str]:
        return self._ledger.holds(attached.container_id, attached.addresses)

    def background_cpu(self) -> float:
        return self.daemon.cpu() if self.daemon else 0.0

    def close(self) -> None:
        self._ledger.close()
        if self.daemon:
            self.daemon.stop()

    def _adding(self, pod: Pod, container_id: str) -> Job:
        result = None
        for step in self._steps:
            ended = yield self._command("ADD", step, pod, container_id, result)
            if ended.code:
                return
            result = json.loads(ended.stdout)

    def _deleting(self, attached: Attached) -> Job:
        for step in reversed(self._steps):
            yield self._command("DEL", step, attached.pod, attached.container_id, attached.result)

    def _command(
        self,
        verb: str,
        step: Step,
        pod: Pod,
        container_id: str,
        result: Mapping[str, Any] | None,
    ) -> Command:
        program, conf_of = step
        env = {
            **self._env,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": str(pod.path),
            "CNI_IFNAME": IFNAME,
        }
        conf = conf_of(int(container_id, 16))
        if result is not None:
            conf = {**conf, "prevResult": dict(result)}
        return Command(program, env, json.dumps(conf).encode())

    def _run(self, jobs: Sequence[Job]) -> tuple[Burst, list[list[Exit]]]:
        wall, ends = self.host.call(lambda: spawn.run_jobs(jobs, self.host.stderr, AT_ONCE))
        each = tuple(sum(ended.wall for ended in exits) for exits in ends)
        return Burst(wall, sum(ended.cpu for exits in ends for ended in exits), each), ends

    def _check(self, verb: str, exits: Sequence[Exit]) -> None:
        for ended in exits:
            if ended.code:
                said = ended.stdout.decode(errors="replace").strip()
                log = self.daemon.log() if self.daemon else ""
                words = "\n".join(filter(None, [said, self.host.complaints(), log]))
                raise CallFailed(f"{self.label}: {verb} ended with {ended.code}: {words}")

    def _attached(self, pod: Pod, container_id: str, exits: Sequence[Exit]) -> Attached:
        self._check("ADD", exits)
        result = json.loads(exits[-1].stdout)
        addresses = tuple(str(ip_interface(ip["address"]).ip) for ip in result["ips"])
        attached = Attached(pod, container_id, addresses, result)
        self._check_ports(attached)
        return attached

    def _check_ports(self, attached: Attached) -> None:
        """Raise OSError unless each mapped port leads to the pod's."""
        address, number = self.host.node.address(4), int(attached.container_id, 16)
        for place, port in enumerate(POD_PORTS):
            with ExitStack() as stack:
                server = stack.enter_context(listening(attached, port))
                client = stack.enter_context(self._world.underlay.ns.socket(*STREAM))
                for end in (server, client):
                    end.settimeout(10)
                client.connect((address, host_port(number, place)))
                server.accept()[0].close()


STREAM = (socket.AF_INET, socket.SOCK_STREAM)


def listening(attached: Attached, port: int) -> socket.socket:
    """A listener in a pod; an earlier one's connections may still be in TIME_WAIT."""
    server = attached.pod.socket(*STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((attached.addresses[0], port))
    server.listen()
    return server
