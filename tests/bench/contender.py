"""What is measured: anything that attaches pods to a network and detaches them."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from tests.bench import spawn
from tests.bench.daemon import Daemon
from tests.bench.ledger import Ledger
from tests.bench.networks import Conf, Network
from tests.bench.spawn import Command, Exit
from tests.bench.world import Host, Pod
from tests.pytest_netns.node import SEARCH_PATH

AT_ONCE = 32
"""Calls at once in a burst."""

IFNAME = "eth0"


class CallFailed(Exception):
    """A contender did not do what it was called for."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an operation took, in seconds; cpu without a daemon's."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Burst:
    """What many operations took: wall and CPU seconds of all, and the wall time of each."""

    wall: float
    cpu: float
    each: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """A pod that has its network."""

    pod: Pod
    container_id: str
    addresses: tuple[str, ...]
    result: Mapping[str, Any] = field(default_factory=dict)


class Contender(ABC):
    """One way to attach pods, on a node of its own. stride: it takes part in each n-th round."""

    def __init__(self, label: str, host: Host, network: Network, stride: int = 1) -> None:
        self.label, self.host, self.network, self.stride = label, host, network, stride
        self._numbers = itertools.count(1)

    def next_id(self) -> str:
        """A container ID that was not there before, as long as a runtime's."""
        return f"{next(self._numbers):064x}"

    @abstractmethod
    def add(self, pod: Pod) -> tuple[Attached, Cost]:
        """Attach a pod."""

    @abstractmethod
    def delete(self, attached: Attached) -> Cost:
        """Detach a pod."""

    @abstractmethod
    def add_many(self, pods: Sequence[Pod]) -> tuple[list[Attached], Burst]:
        """Attach pods, some at once."""

    @abstractmethod
    def delete_many(self, attached: Sequence[Attached]) -> Burst:
        """Detach pods, some at once."""

    @abstractmethod
    def holds(self, attached: Attached) -> list[str]:
        """What is still allocated to an attachment."""

    def background_cpu(self) -> float:
        """CPU seconds that a daemon of the contender's has used so far."""
        return 0.0

    @abstractmethod
    def close(self) -> None:
        """End what runs beside the calls."""


class Plugin(Contender):
    """A CNI executable, perhaps with a daemon behind it."""

    def __init__(
        self,
        label: str,
        host: Host,
        network: Network,
        *,
        program: Path,
        conf: Conf,
        ledger: Ledger,
        env: Mapping[str, str] | None = None,
        daemon: Daemon | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__(label, host, network, stride)
        self._program, self._conf, self._ledger = program, conf, ledger
        self._env = {"PATH": SEARCH_PATH, "CNI_PATH": str(program.parent), **(env or {})}
        self.daemon = daemon

    def add(self, pod: Pod) -> tuple[Attached, Cost]:
        container_id = self.next_id()
        ended = self._run(self._command("ADD", pod, container_id))
        return self._attached(pod, container_id, ended), Cost(ended.wall, ended.cpu)

    def delete(self, attached: Attached) -> Cost:
        ended = self._run(self._delete_command(attached))
        self._check("DEL", ended)
        return Cost(ended.wall, ended.cpu)

    def add_many(self, pods: Sequence[Pod]) -> tuple[list[Attached], Burst]:
        ids = [self.next_id() for _ in pods]
        named = list(zip(pods, ids, strict=True))
        burst, ends = self._run_many([self._command("ADD", pod, id_) for pod, id_ in named])
        return [self._attached(*n, e) for n, e in zip(named, ends, strict=True)], burst

    def delete_many(self, attached: Sequence[Attached]) -> Burst:
        burst, ends = self._run_many([self._delete_command(a) for a in attached])
        for ended in ends:
            self._check("DEL", ended)
        return burst

    def holds(self, attached: Attached) -> list[str]:
        return self._ledger.holds(attached.container_id, attached.addresses)

    def background_cpu(self) -> float:
        return self.daemon.cpu() if self.daemon else 0.0

    def close(self) -> None:
        self._ledger.close()
        if self.daemon:
            self.daemon.stop()

    def _command(
        self, verb: str, pod: Pod, container_id: str, result: Mapping[str, Any] | None = None
    ) -> Command:
        env = {
            **self._env,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": str(pod.path),
            "CNI_IFNAME": IFNAME,
        }
        conf = self._conf if result is None else {**self._conf, "prevResult": dict(result)}
        return Command(self._program, env, json.dumps(conf).encode())

    def _delete_command(self, attached: Attached) -> Command:
        return self._command("DEL", attached.pod, attached.container_id, attached.result)

    def _run(self, command: Command) -> Exit:
        return self.host.call(lambda: spawn.run(command, self.host.stderr))

    def _run_many(self, commands: Sequence[Command]) -> tuple[Burst, list[Exit]]:
        wall, ends = self.host.call(lambda: spawn.run_many(commands, self.host.stderr, AT_ONCE))
        return Burst(wall, sum(e.cpu for e in ends), tuple(e.wall for e in ends)), ends

    def _check(self, verb: str, ended: Exit) -> None:
        if ended.code:
            said = ended.stdout.decode(errors="replace").strip()
            log = self.daemon.log() if self.daemon else ""
            words = "\n".join(filter(None, [said, self.host.complaints(), log]))
            raise CallFailed(
                f"{self.label}, {self.network.case}: {verb} ended with {ended.code}: {words}"
            )

    def _attached(self, pod: Pod, container_id: str, ended: Exit) -> Attached:
        self._check("ADD", ended)
        result = json.loads(ended.stdout)
        addresses = tuple(str(ip_interface(ip["address"]).ip) for ip in result["ips"])
        return Attached(pod, container_id, addresses, result)
