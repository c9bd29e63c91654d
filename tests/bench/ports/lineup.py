"""The contenders: the reference's chain, podwire in one call, podwire by the drop-in names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.ledger import HostLocalLedger, StoreLedger
from tests.bench.lineup import SOCKET, Lineup, serve
from tests.bench.networks import NAME, Conf, Network, podwire_conf, reference_conf
from tests.bench.ports.chain import Chain, Step, mappings
from tests.bench.results import DROP_IN, PEER, PODWIRE
from tests.bench.world import Host

PORTS_NETWORK = Network("bridge ipMasq, 2 ports, bandwidth", "bridge", masquerade=True)
LIMITS = {"ingressRate": 10**9, "ingressBurst": 10**8, "egressRate": 10**9, "egressBurst": 10**8}
"""Bits in a second, and bits: more than anything here sends."""
CHAINED = ("portmap", "bandwidth")
LABELS = (PEER, PODWIRE, DROP_IN)


@contextmanager
def port_contenders(
    lineup: Lineup, *labels: str, chained: tuple[str, ...] = CHAINED, with_daemon: bool = True
) -> Iterator[list[Chain]]:
    """Contenders, ready to be called."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(_contender(lineup, name, chained, with_daemon)) for name in labels
        ]


@contextmanager
def _contender(
    lineup: Lineup, label: str, chained: tuple[str, ...], with_daemon: bool
) -> Iterator[Chain]:
    with lineup.world.host(label) as host:
        data_dir = host.work_dir / "data"
        data_dir.mkdir(0o700)
        steps = _steps(lineup, host, label, data_dir, chained)
        network = PORTS_NETWORK
        if label == PEER:
            ledger = HostLocalLedger(data_dir)
            chain = Chain(label, host, network, world=lineup.world, steps=steps, ledger=ledger)
        else:
            env = {"PODWIRE_SOCKET": SOCKET, "PODWIRE_DATA_DIR": str(data_dir)}
            program = lineup.programs.daemon if with_daemon else None
            chain = Chain(
                label, host, network,
                world=lineup.world,
                steps=steps,
                ledger=StoreLedger(data_dir),
                env=env,
                daemon=serve(host, program, data_dir, env) if program else None,
            )  # fmt: skip
        try:
            yield chain
        finally:
            chain.close()


def _steps(
    lineup: Lineup, host: Host, label: str, data_dir: Path, chained: tuple[str, ...]
) -> list[Step]:
    network = PORTS_NETWORK
    if label == PODWIRE:
        conf = podwire_conf(network)
        return [(lineup.programs.podwire, lambda number: conf | _asked(number, chained))]
    folder = lineup.programs.reference if label == PEER else _named(lineup, host)
    main = reference_conf(network, data_dir)
    return [
        (folder / network.mode, lambda _number: main),
        *(_chained_step(folder / name) for name in chained),
    ]


def _chained_step(program: Path) -> Step:
    def conf(number: int) -> Conf:
        shared = {"cniVersion": "1.0.0", "name": NAME, "type": program.name}
        return shared | _asked(number, (program.name,))

    return program, conf


def _asked(number: int, names: tuple[str, ...]) -> Conf:
    """What a runtime asks the plugins of these names for."""
    asked: dict[str, Conf] = {
        "portmap": {"portMappings": mappings(number)},
        "bandwidth": {"bandwidth": LIMITS},
    }
    return {"runtimeConfig": {k: v for name in names for k, v in asked[name].items()}}


def _named(lineup: Lineup, host: Host) -> Path:
    """A folder in which podwire has the reference plugins' names."""
    folder = host.work_dir / "bin"
    folder.mkdir()
    for name in ("bridge", "host-local", *CHAINED):
        (folder / name).symlink_to(lineup.programs.podwire)
    return folder
