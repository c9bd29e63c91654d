"""What pods on two nodes get of the network, through podwire's overlay and one made by hand.

Both do the same: either no address is translated, or what leaves the cluster is masqueraded, for
which the kernel must track every connection (net/netfilter/nf_conntrack_core.c), also those within.
The floor is made by hand, too, with an empty chain at each hook where podwire has a filter.

Exchanges and transfers are measured in short blocks, all overlays in turns: what else the machine
does, and the speed of its processors, change from second to second.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.bench.lineup import Lineup
from tests.bench.results import BY_HAND, FLOOR, PODWIRE, Figure, Results
from tests.bench.rounds import Say, in_turns
from tests.bench.routing import byhand
from tests.bench.routing.cluster import open_cluster, running
from tests.bench.routing.fleet import list_node
from tests.bench.routing.member import Member, wait_for
from tests.bench.sizes import Sizes
from tests.bench.world import Pod

OVERLAY = "overlay"
CASES = {"pod to pod, VXLAN": False, "pod to pod, VXLAN, ipMasq": True}
"""Whether there is masquerade, by the case's name."""
_THROUGHPUT, _ROUND_TRIP = ("TCP throughput (iperf3)", "Gbit/s"), ("TCP round trip", "µs")
_PATH = ("TCP throughput of one thread", "Gbit/s")
THROUGHPUTS = [Figure(OVERLAY, case, *_THROUGHPUT) for case in CASES]
PATHS = [Figure(OVERLAY, case, *_PATH) for case in CASES]
ROUND_TRIPS = [Figure(OVERLAY, case, *_ROUND_TRIP) for case in CASES]
_PORT = 5201
_BLOCKS = 20
"""In a round, for each overlay."""
_EXCHANGES, _CHUNKS = 300, 150
"""In a block."""
_CHUNK_BYTES = 1 << 16

_Ends = tuple[socket.socket, socket.socket]
"""The ends of a TCP connection."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pods on two nodes; address is the second one's."""

    one: Pod
    two: Pod
    address: str


def overlay(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """All overlays, in turns."""
    with ExitStack() as stack:
        pairs: dict[tuple[str, str], Pair] = {}
        for case, masquerade in CASES.items():
            say(f"{OVERLAY}: making {case}")
            pairs[case, PODWIRE] = stack.enter_context(_podwire_pair(lineup, masquerade))
            rules = byhand.MASQUERADE if masquerade else ""
            pairs[case, BY_HAND] = stack.enter_context(_pair_by_hand(lineup, rules))
            if not masquerade:
                pairs[case, FLOOR] = stack.enter_context(_pair_by_hand(lineup, byhand.HOOKS))
        ends = {key: stack.enter_context(connected(pair)) for key, pair in pairs.items()}
        for number in range(sizes.streams):
            say(f"{OVERLAY}: round {number + 1} of {sizes.streams}")
            for block in range(_BLOCKS):
                for key in in_turns([*ends], block):
                    _measure_block(ends[key], *key, results)
            for key in in_turns([*pairs], number):
                _measure_stream(pairs[key], *key, sizes.stream, results)


def _measure_block(ends: _Ends, case: str, contender: str, results: Results) -> None:
    trip = measure_round_trip(ends)
    results.add(Figure(OVERLAY, case, *_ROUND_TRIP), contender, trip * 1e6)
    results.add(Figure(OVERLAY, case, *_PATH), contender, measure_path(ends) / 1e9)


def _measure_stream(pair: Pair, case: str, contender: str, seconds: int, results: Results) -> None:
    bits = measure_throughput(pair, seconds)
    results.add(Figure(OVERLAY, case, *_THROUGHPUT), contender, bits / 1e9)


@contextmanager
def _podwire_pair(lineup: Lineup, masquerade: bool) -> Iterator[Pair]:
    with (
        open_cluster(lineup, PODWIRE, 2) as cluster,
        running(cluster, lineup, places=(0, 1), masquerade=masquerade) as members,
    ):
        yield _attach(lineup, members)


def _attach(lineup: Lineup, members: Sequence[Member]) -> Pair:
    one, two = lineup.world.pods(f"{OVERLAY}-{members[0].host.label}", 2)
    members[0].attach(one, lineup.programs.podwire)
    return Pair(one, two, members[1].attach(two, lineup.programs.podwire))


@contextmanager
def _pair_by_hand(lineup: Lineup, rules: str) -> Iterator[Pair]:
    with lineup.world.host("by-hand") as first, lineup.world.host("by-hand") as second:
        hosts = (first, second)
        nodes = [list_node(n, host.node.address(4)) for n, host in enumerate(hosts)]
        one, two = lineup.world.pods(f"{OVERLAY}-{first.label}", 2)
        _, address = byhand.join(hosts, nodes, (one, two))
        byhand.load(hosts, rules)
        yield Pair(one, two, address)


def measure_throughput(pair: Pair, seconds: int) -> float:
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
            client = argv(pair.one, "-c", pair.address, "-t", str(seconds), "-J")
            wait_for("the server of iperf3", lambda: _listens(pair))
            done = subprocess.run(client, capture_output=True, check=True, timeout=seconds + 30)
        finally:
            server.terminate()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


def _listens(pair: Pair) -> bool:
    done = pair.two.run(["ss", "-Hltn", f"sport = :{_PORT}"])
    return bool(done.stdout.strip())


def measure_round_trip(ends: _Ends) -> float:
    """Median seconds of an exchange of one byte each way over one TCP connection.

    One thread has both ends: what the kernel does for a packet is counted, waking a process is
    not, and other load on the machine hardly.
    """
    return statistics.median(_exchange(*ends) for _ in range(_EXCHANGES))


def measure_path(ends: _Ends) -> float:
    """Bits per second of one TCP connection with both ends in one thread, by the median chunk."""
    chunk, space = bytes(_CHUNK_BYTES), bytearray(_CHUNK_BYTES)
    times = [_transfer(*ends, chunk, space) for _ in range(_CHUNKS)]
    return 8 * _CHUNK_BYTES / statistics.median(times)


@contextmanager
def connected(pair: Pair) -> Iterator[_Ends]:
    """A TCP connection from the first pod to the second, by its two ends."""
    with ExitStack() as stack:
        listener = stack.enter_context(pair.two.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((pair.address, 0))
        listener.listen(1)
        near = stack.enter_context(pair.one.socket(socket.AF_INET, socket.SOCK_STREAM))
        near.connect(listener.getsockname())
        far = stack.enter_context(listener.accept()[0])
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield near, far


def _transfer(near: socket.socket, far: socket.socket, chunk: bytes, space: bytearray) -> float:
    began = time.perf_counter()
    near.sendall(chunk)
    left = len(chunk)
    while left:
        left -= far.recv_into(space)
    return time.perf_counter() - began


def _exchange(near: socket.socket, far: socket.socket) -> float:
    began = time.perf_counter()
    near.send(b"x")
    far.recv(1)
    far.send(b"y")
    near.recv(1)
    return time.perf_counter() - began
