"""Connections of a pod that policies limit, by the number of policies and of their peers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from daemon.policy.compile import LocalPod, compile_rules
from daemon.policy.model import Facts
from daemon.policy.objects import facts_of
from kernel.nftables.policy import load_policy, render, render_changes
from tests.bench.lineup import Lineup
from tests.bench.policy.api import policies_of_a_cluster
from tests.bench.policy.names import POLICY
from tests.bench.policy.objects import (
    PORT,
    SPACE,
    Object,
    by_role,
    client,
    many_peers,
    many_policies,
    pod,
    policy,
    write,
)
from tests.bench.results import PODWIRE, Figure, Results
from tests.bench.rounds import Say, in_turns
from tests.bench.routing.cluster import find_daemon, open_cluster
from tests.bench.routing.member import Member, wait_for
from tests.bench.routing.overlay import Pair, connected, measure_path
from tests.bench.sizes import Sizes

FEW, MANY = 10, 10_000
NONE = "no policy"
_CASES: dict[str, Callable[[str], list[Object]]] = {
    NONE: lambda _address: [],
    **{f"{n:,} policies": partial(many_policies, n) for n in (FEW, MANY)},
    **{f"{n:,} peers": partial(many_peers, n) for n in (FEW, MANY)},
}
CHANGE = Figure(POLICY, "1,000 policies, 5,000 pods", "a label changes: compiled, in the kernel")
_POLICIES, _PODS, _LOCAL = 1_000, 5_000, 50
_CONNECTIONS = 20
_STREAM = (socket.AF_INET, socket.SOCK_STREAM)
_NO_LINGER = struct.pack("ii", 1, 0)


def connecting(case: str) -> Figure:
    """The time of a new connection."""
    return Figure(POLICY, case, "new TCP connection", "µs")


def established(case: str) -> Figure:
    """The throughput of one that is established."""
    return Figure(POLICY, case, "TCP throughput of one thread", "Gbit/s")


def memory(case: str) -> Figure:
    """The daemon's memory."""
    return Figure(POLICY, case, "PSS", "MB")


@dataclass(frozen=True, slots=True)
class Limited:
    """Two pods of one node: the first connects to the second, which policies limit."""

    case: str
    pair: Pair
    listener: socket.socket
    member: Member


def policies(lineup: Lineup, results: Results, sizes: Sizes, say: Say) -> None:
    """All numbers of policies and peers, in turns; then changes."""
    with ExitStack() as stack:
        made = []
        for case, make in _CASES.items():
            say(f"{POLICY}: preparing {case}")
            made.append(stack.enter_context(_limited(lineup, case, make)))
        for number in range(sizes.rounds + 1):
            say(f"{POLICY}: round {number} of {sizes.rounds}")
            for limited in in_turns(made, number):
                times = _connect(limited)
                with connected(limited.pair) as ends:
                    speed = measure_path(ends) / 1e9
                if number:
                    results.add(connecting(limited.case), PODWIRE, *times)
                    results.add(established(limited.case), PODWIRE, speed)
        for limited in made:
            results.add(memory(limited.case), PODWIRE, limited.member.daemon.pss())
    with lineup.world.host(POLICY) as host:
        say(f"{POLICY}: changes")
        results.add(CHANGE, PODWIRE, *host.call(lambda: _changes(10 * sizes.rounds)))
    policies_of_a_cluster(lineup, results, sizes, say)


@contextmanager
def _limited(lineup: Lineup, case: str, make: Callable[[str], list[Object]]) -> Iterator[Limited]:
    with open_cluster(lineup, POLICY, 1) as cluster, ExitStack() as stack:
        folder = cluster.hosts[0].work_dir / "policies"
        folder.mkdir()
        where = {"dir": str(folder)}
        member = cluster.member(0, [find_daemon(lineup)], policy=where, health=False)
        stack.callback(member.end)
        member.start()
        one, two = lineup.world.pods(f"{POLICY}-{cluster.hosts[0].label}", 2)
        source = member.attach(one, lineup.programs.podwire)
        args = f"K8S_POD_NAMESPACE={SPACE};K8S_POD_NAME=target"
        target = member.attach(two, lineup.programs.podwire, args=args)
        things = make(source)
        write(folder, "policies", things)
        _await(cluster.hosts[0].work_dir / "data" / "policy.json", len(things))
        listener = stack.enter_context(two.socket(*_STREAM))
        listener.bind((target, PORT))
        listener.listen()
        yield Limited(case, Pair(one, two, target), listener, member)


def _await(saved: Path, count: int) -> None:
    """Wait until the daemon has enforced and saved so many objects."""

    def is_there() -> bool:
        return saved.exists() and saved.read_bytes().count(b'"kind"') >= count

    if count:
        wait_for("the policies", is_there, gap=0.1)


def _connect(limited: Limited) -> list[float]:
    """Microseconds until connected; one thread has both ends."""
    times = []
    for _ in range(_CONNECTIONS):
        with limited.pair.one.socket(*_STREAM) as near:
            near.settimeout(10)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            began = time.perf_counter()
            near.connect((limited.pair.address, PORT))
            times.append((time.perf_counter() - began) * 1e6)
            limited.listener.accept()[0].close()
    return times


def _changes(count: int) -> list[float]:
    """Milliseconds until a pod's changed label is in the kernel, of some changes."""
    roles = _PODS // 50
    things: list[Object] = [pod(n, f"r{n % roles}") for n in range(_PODS)]
    things += [
        policy(f"p{n}", by_role(f"r{n % roles}"), client("192.0.2.1"), selects=f"a{n % _LOCAL}")
        for n in range(_POLICIES)
    ]
    for n in range(_LOCAL):
        own = pod(_PODS + n, "local")
        own["metadata"]["labels"]["app"] = f"a{n}"
        things.append(own)
    facts = facts_of(things)
    local = [LocalPod(f"pw{n:011x}", (SPACE, f"peer-{_PODS + n}")) for n in range(_LOCAL)]
    rules = compile_rules(facts, local).rules
    load_policy(render(rules))
    times = []
    for n in range(count):
        facts = _relabelled(facts, n, f"r{(n + 1) % roles}")
        began = time.perf_counter()
        fresh = compile_rules(facts, local).rules
        load_policy(render_changes(rules, fresh))
        times.append((time.perf_counter() - began) * 1e3)
        rules = fresh
    return times


def _relabelled(facts: Facts, number: int, role: str) -> Facts:
    key = (SPACE, f"peer-{number}")
    changed = replace(facts.pods[key], labels={"role": role})
    return replace(facts, pods={**facts.pods, key: changed})
