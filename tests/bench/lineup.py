"""The contenders for a network, each on a fresh node."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contender import Contender, Plugin
from tests.bench.daemon import Daemon
from tests.bench.floor import Floor
from tests.bench.ledger import HostLocalLedger, KindnetLedger, StoreLedger
from tests.bench.networks import Network, kindnet_conf, podwire_conf, reference_conf
from tests.bench.programs import Programs
from tests.bench.results import FLOOR, KINDNET, PEER, PODWIRE, STANDALONE
from tests.bench.world import Host, World

SOCKET = "/run/podwire.sock"
"""Each node has a /run of its own."""

Fill = Callable[[str, Path], None]
"""Writes allocations into the data folder of a contender, before its daemon starts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender by its name, and how often it takes part."""

    label: str
    stride: int = 1


class Lineup:
    """Makes contenders; each ends with its node when the context is left."""

    def __init__(self, world: World, programs: Programs) -> None:
        self.world, self.programs = world, programs

    def takes_part(self, label: str, network: Network) -> bool:
        """Whether there is such a contender for a network."""
        if label == KINDNET:
            masked = network.mode == "bridge" or network.masquerade
            return self.programs.kindnet is not None and not masked
        return label != STANDALONE or self.programs.daemon is not None

    @contextmanager
    def contenders(
        self, network: Network, *entries: Entry, fill: Fill | None = None
    ) -> Iterator[list[Contender]]:
        """Those of the entries that can take part, ready to be called."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(self._contender(network, entry, fill))
                for entry in entries
                if self.takes_part(entry.label, network)
            ]

    @contextmanager
    def _contender(self, network: Network, entry: Entry, fill: Fill | None) -> Iterator[Contender]:
        make = {
            FLOOR: self._floor,
            PEER: self._reference,
            PODWIRE: self._podwire,
            STANDALONE: self._standalone,
            KINDNET: self._kindnet,
        }[entry.label]
        with self.world.host(entry.label) as host:
            data_dir = host.work_dir / "data"
            data_dir.mkdir(0o700)
            if fill is not None:
                fill(entry.label, data_dir)
            contender = make(host, network, data_dir, entry.stride)
            try:
                yield contender
            finally:
                contender.close()

    def _floor(self, host: Host, network: Network, data_dir: Path, stride: int) -> Contender:
        return Floor(host, network, stride)

    def _reference(self, host: Host, network: Network, data_dir: Path, stride: int) -> Contender:
        return Plugin(
            PEER, host, network,
            program=self.programs.reference / network.mode,
            conf=reference_conf(network, data_dir),
            ledger=HostLocalLedger(data_dir),
            stride=stride,
        )  # fmt: skip

    def _podwire(self, host: Host, network: Network, data_dir: Path, stride: int) -> Contender:
        return self._plugin(PODWIRE, host, network, data_dir, stride, self.programs.daemon)

    def _standalone(self, host: Host, network: Network, data_dir: Path, stride: int) -> Contender:
        return self._plugin(STANDALONE, host, network, data_dir, stride, None)

    def _plugin(
        self, label: str, host: Host, network: Network, data_dir: Path, stride: int,
        daemon: Path | None,
    ) -> Contender:  # fmt: skip
        env = {"PODWIRE_SOCKET": SOCKET, "PODWIRE_DATA_DIR": str(data_dir)}
        return Plugin(
            label, host, network,
            program=self.programs.podwire,
            conf=podwire_conf(network),
            ledger=StoreLedger(data_dir),
            env=env,
            daemon=serve(host, daemon, data_dir, env) if daemon else None,
            stride=stride,
        )  # fmt: skip

    def _kindnet(self, host: Host, network: Network, data_dir: Path, stride: int) -> Contender:
        assert self.programs.kindnet is not None
        # The place of its database is fixed; the node has a /var/lib of its own, in memory.
        mount = ["mount", "-o", "X-mount.mkdir", "--bind", str(data_dir), "/var/lib/cni-kindnet"]
        host.call(lambda: subprocess.run(mount, check=True))
        return Plugin(
            KINDNET, host, network,
            program=self.programs.kindnet,
            conf=kindnet_conf(network),
            ledger=KindnetLedger(data_dir),
            stride=stride,
        )  # fmt: skip


def serve(host: Host, program: Path, data_dir: Path, env: Mapping[str, str]) -> Daemon:
    """A podwired on a node, which serves calls."""
    socket = env["PODWIRE_SOCKET"]
    argv = (program, "serve", "--socket", socket, "--data-dir", data_dir)
    return Daemon(host, argv, env)
