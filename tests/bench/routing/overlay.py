"""What pods on two nodes get of the network, through podwire's overlay and one made by hand."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench.lineup import Lineup
from tests.bench.results import BY_HAND, PODWIRE, Figure, Results
from tests.bench.rounds import Say, in_turns
from tests.bench.routing import byhand
from tests.bench.routing.cluster import open_cluster, running
from tests.bench.routing.fleet import list_node
from tests.bench.routing.member import wait_for
from tests.bench.sizes import Sizes
from tests.bench.world import Pod

OVERLAY = "overlay"
CASE = "pod to pod, VXLAN"
THROUGHPUT = Figure(OVERLAY, CASE, "TCP throughput", "Gbit/s")
ROUND_TRIP = Figure(OVERLAY, CASE, "TCP round trip", "µs")
_PORT = 5201
_EXCHANGES = 2_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pods on two nodes; address is the second one's."""

    one: Pod
    two: Pod
    address: str


def overlay(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """Both overlays, in turns."""
    with _podwire_pair(lineup) as ours, _pair_by_hand(lineup) as theirs:
        pairs: Mapping[str, Pair] = {PODWIRE: ours, BY_HAND: theirs}
        for number in range(sizes.streams):
            say(f"{OVERLAY}: round {number + 1} of {sizes.streams}")
            for contender in in_turns([*pairs], number):
                trip = measure_round_trip(pairs[contender])
                results.add(ROUND_TRIP, contender, trip * 1e6)
                bits = measure_throughput(pairs[contender], sizes.stream)
                results.add(THROUGHPUT, contender, bits / 1e9)


@contextmanager
def _podwire_pair(lineup: Lineup) -> Iterator[Pair]:
    with (
        open_cluster(lineup, PODWIRE, 2) as cluster,
        running(cluster, lineup, places=(0, 1)) as members,
    ):
        one, two = lineup.world.pods(f"{OVERLAY}-podwire", 2)
        members[0].attach(one, lineup.programs.podwire)
        yield Pair(one, two, members[1].attach(two, lineup.programs.podwire))


@contextmanager
def _pair_by_hand(lineup: Lineup) -> Iterator[Pair]:
    with lineup.world.host("by-hand") as first, lineup.world.host("by-hand") as second:
        hosts = (first, second)
        nodes = [list_node(n, host.node.address(4)) for n, host in enumerate(hosts)]
        one, two = lineup.world.pods(f"{OVERLAY}-hand", 2)
        yield Pair(one, two, byhand.join(hosts, nodes, (one, two))[1])


def measure_throughput(pair: Pair, seconds: float) -> float:
    """Bits per second of one TCP stream, as the receiver counts them."""
    enter = ["nsenter", "--net={}", "--", "iperf3"]

    def argv(pod: Pod, *words: str) -> list[str]:
        return [word.format(pod.path) for word in enter] + [*words, "-p", str(_PORT)]

    with subprocess.Popen(
        argv(pair.two, "-s", "-1", "-B", pair.address),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            client = argv(pair.one, "-c", pair.address, "-t", f"{seconds:g}", "-J")
            wait_for("the server of iperf3", lambda: _listens(pair))
            done = subprocess.run(client, capture_output=True, check=True, timeout=seconds + 30)
        finally:
            server.terminate()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


def _listens(pair: Pair) -> bool:
    done = pair.two.run(["ss", "-Hltn", f"sport = :{_PORT}"])
    return bool(done.stdout.strip())


def measure_round_trip(pair: Pair) -> float:
    """Median seconds of an exchange of one byte each way over one TCP connection.

    One thread has both ends: what the kernel does for a packet is counted, waking a process is
    not.
    """
    with pair.two.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((pair.address, 0))
        listener.listen(1)
        with pair.one.socket(socket.AF_INET, socket.SOCK_STREAM) as near:
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            with far:
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return statistics.median(_exchange(near, far) for _ in range(_EXCHANGES))


def _exchange(near: socket.socket, far: socket.socket) -> float:
    began = time.perf_counter()
    near.send(b"x")
    far.recv(1)
    far.send(b"y")
    near.recv(1)
    return time.perf_counter() - began
