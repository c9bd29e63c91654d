"""How long a new connection through a mapped port takes, by the number of mappings of the node.

Every contender has a node for each number of mappings, and on it one pod, whose mappings are in the
midst of the others. Those are made as the contender makes them, by one command: as if pods with two
mappings each were attached. One thread has both ends of a connection, so what the kernel does for
the first packets is counted, and no process is woken.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from tests.bench.lineup import Lineup
from tests.bench.ports.chain import POD_PORTS, STREAM, Chain, host_port, listening
from tests.bench.ports.lineup import port_contenders
from tests.bench.results import PEER, PODWIRE, Figure, Results
from tests.bench.rounds import Say, in_turns
from tests.bench.sizes import Sizes
from tests.pytest_netns.node import SEARCH_PATH

PORTS = "ports"
MAPPINGS = (10, 100, 1_000, 10_000)
_CONNECTIONS = 20
"""In a turn."""
_NO_LINGER = struct.pack("ii", 1, 0)


def connecting(count: int) -> Figure:
    """The time of a new connection."""
    return Figure(PORTS, f"{count:,} mappings", "new TCP connection", "µs")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A pod with a mapped port; listener: of the pod's port."""

    label: str
    count: int
    to: tuple[str, int]
    listener: socket.socket


def new_connections(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """All numbers of mappings and all contenders, in turns."""
    with ExitStack() as stack:
        made = []
        for count in MAPPINGS:
            say(f"{PORTS}: preparing {count:,} mappings")
            contenders = stack.enter_context(
                port_contenders(lineup, PEER, PODWIRE, chained=("portmap",), with_daemon=False)
            )
            made += [_prepare(lineup, stack, contender, count) for contender in contenders]
        for number in range(sizes.rounds + 1):
            say(f"{PORTS}: connections, round {number} of {sizes.rounds}")
            for mapped in in_turns(made, number):
                times = _connect(lineup, mapped)
                if number:
                    results.add(connecting(mapped.count), mapped.label, *times)


def _prepare(lineup: Lineup, stack: ExitStack, contender: Chain, count: int) -> Mapped:
    pod, kept = lineup.world.pods(f"{PORTS}-{contender.host.label}", 2)
    contender.add(kept)  # makes the tables
    others = range(10, 10 + count // len(POD_PORTS) - 2)
    half = len(others) // 2
    _fill(contender, others[:half])
    attached, _ = contender.add(pod)
    _fill(contender, others[half:])
    listener = stack.enter_context(listening(attached, POD_PORTS[0]))
    to = contender.host.node.address(4), host_port(int(attached.container_id, 16))
    return Mapped(contender.label, count, to, listener)


def _fill(contender: Chain, numbers: Sequence[int]) -> None:
    if not numbers:
        return
    argv, text = {PEER: _chains, PODWIRE: _elements}[contender.label](numbers)
    contender.host.call(
        lambda: subprocess.run(
            argv, input=text.encode(), env={"PATH": SEARCH_PATH}, check=True, capture_output=True
        )
    )


def _address(number: int) -> str:
    return str(ip_address("10.128.64.0") + number)


def _elements(numbers: Sequence[int]) -> tuple[list[str], str]:
    mapped = ", ".join(
        f"tcp . {host_port(number, place)} : {_address(number)} . {port}"
        for number in numbers
        for place, port in enumerate(POD_PORTS)
    )
    return ["nft", "-f", "-"], f"add element inet podwire any_host_ports4 {{ {mapped} }}\n"


def _chains(numbers: Sequence[int]) -> tuple[list[str], str]:
    """For each pod a rule of the common chain, and a chain of its own with three rules a port."""
    names = {number: f"CNI-DN-{number:021d}" for number in numbers}
    lines = ["*nat", *(f":{name} - [0:0]" for name in names.values())]
    for number, name in names.items():
        ports = [host_port(number, place) for place in range(len(POD_PORTS))]
        listed = ",".join(map(str, ports))
        lines.append(f"-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports {listed} -j {name}")
        for port, target in zip(ports, POD_PORTS, strict=True):
            rule = f"-A {name} -p tcp --dport {port}"
            lines += [
                f"{rule} -s {_address(number)}/16 -j CNI-HOSTPORT-SETMARK",
                f"{rule} -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK",
                f"{rule} -j DNAT --to-destination {_address(number)}:{target}",
            ]
    return ["iptables-restore", "--noflush"], "\n".join([*lines, "COMMIT", ""])


def _connect(lineup: Lineup, mapped: Mapped) -> list[float]:
    """Microseconds until connected, of some connections one after the other."""
    clients = lineup.world.underlay.ns.call(
        lambda: [socket.socket(*STREAM) for _ in range(_CONNECTIONS)]
    )
    times = []
    for client in clients:
        with client:
            client.settimeout(10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            began = time.perf_counter()
            client.connect(mapped.to)
            times.append((time.perf_counter() - began) * 1e6)
            mapped.listener.accept()[0].close()
    return times
