"""All daemons of a DaemonSet restart at once: what reaches the API server, and when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.checks import CheckFailed
from tests.bench.kubernetes.fleet import CLUSTER_CIDRS, make_node, publish
from tests.bench.kubernetes.quiet import KUBERNETES
from tests.bench.lineup import Lineup
from tests.bench.results import PODWIRE, Figure, Results
from tests.bench.rounds import Say
from tests.bench.routing.fleet import list_peers
from tests.bench.sizes import Sizes
from tests.bench.world import Host
from tests.cluster.apiserver import PORT, ApiServer, Request, make_kubeconfig
from tests.cluster.rest import place_of
from tests.pytest_netns import tools

_PROCESSES = 4
_LOOK = 0.2
_PATIENCE = 240.0
PEAK = "peak of requests a second"
LISTS = "peak of lists a second"
CURRENT = "until each is current"
FEW = 3


def measure_restarts(
    lineup: Lineup, api: ApiServer, results: Results, sizes: Sizes, say: Say
) -> None:
    """With nothing known, of a few nodes and of many, and with what was known."""
    nodes = list_peers(sizes.herd)
    say(f"{KUBERNETES}: {sizes.herd} nodes")
    made = (api.admin.ask("POST", place_of("Node"), make_node(n)).expect(201) for n in nodes)
    uids = {m["metadata"]["name"]: m["metadata"]["uid"] for m in made}
    with lineup.world.host(PODWIRE) as host:
        token = host.work_dir / "token"
        token.write_text(api.issue(nodes[0].name))  # none writes: what is published is right
        server = f"https://{host.node.underlay.gateway(4)}:{PORT}"
        kubeconfig = make_kubeconfig(host.work_dir, server, api.authority.ca, token)
        for count, known in ((FEW, False), (sizes.herd, False), (sizes.herd, True)):
            names = [node.name for node in nodes[:count]]
            publish(api, nodes[:count], uids)
            case = case_of(count, known)
            say(f"{KUBERNETES}: {case}")
            if not known:
                _forget(host.work_dir, names)
            before, began = len(api.requests()), time.time()
            with Traffic(host) as traffic:
                said = _run(host, names, kubeconfig)
            _report(results, f"{case}; {api.kind}", api.requests()[before:], traffic, said, began)


def case_of(count: int, known: bool) -> str:
    """How the case of so many daemons is called."""
    return f"{count} daemons start at once, {'last state' if known else 'nothing'} known"


def _forget(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name / "cluster.json").unlink(missing_ok=True)


class Traffic:
    """What a host receives, looked at a few times a second."""

    def __init__(self, host: Host) -> None:
        self.total = 0.0
        self.peak = 0.0
        self._host, self._done = host, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        first = last = self._read()
        seconds: list[int] = []
        while not self._done.wait(_LOOK):
            now = self._read()
            seconds.append(now - last)
            last = now
            width = round(1 / _LOOK)
            self.peak = max(self.peak, sum(seconds[-width:]))
        self.total = last - first

    def _read(self) -> int:
        text = self._host.call(lambda: Path("/proc/thread-self/net/dev").read_text())
        line = next(line for line in text.splitlines() if line.strip().startswith("eth0:"))
        return int(line.partition(":")[2].split()[0])


def _run(host: Host, names: Sequence[str], kubeconfig: Path) -> list[Any]:
    with ExitStack() as stack:
        herds = [_start(host, names[place::_PROCESSES], len(names), kubeconfig, stack)
                 for place in range(_PROCESSES)]  # fmt: skip
        for herd in herds:
            assert herd.stdout is not None
            if herd.stdout.readline() != b"ready\n":
                raise CheckFailed("a process of sources did not start")
        for herd in herds:
            assert herd.stdin is not None
            herd.stdin.write(b"go\n")
            herd.stdin.flush()
        return [_listen(herd) for herd in herds]


def _listen(herd: subprocess.Popen[bytes]) -> Any:
    assert herd.stdout is not None
    line = herd.stdout.readline()
    if not line:
        raise CheckFailed(f"a process of sources ended with {herd.wait()}")
    return json.loads(line)


def _start(
    host: Host, names: Sequence[str], nodes: int, kubeconfig: Path, stack: ExitStack
) -> subprocess.Popen[bytes]:
    wanted = {
        "names": [*names], "nodes": nodes, "kubeconfig": str(kubeconfig),
        "folder": str(host.work_dir), "cidrs": [*CLUSTER_CIDRS], "seconds": _PATIENCE,
    }  # fmt: skip
    argv = [*host.node.enter, sys.executable, "-m", "tests.bench.kubernetes.herd"]
    herd = stack.enter_context(
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(tools.ROOT)},
        )
    )
    assert herd.stdin is not None
    herd.stdin.write(json.dumps(wanted).encode() + b"\n")
    herd.stdin.flush()
    return herd


def _report(
    results: Results, case: str, requests: Sequence[Request], traffic: Traffic,
    said: Sequence[Any], began: float,
) -> None:  # fmt: skip
    seconds = [second for herd in said for second in herd["seconds"]]
    wanted = sum(len(herd["bytes"]) for herd in said)
    if len(seconds) < wanted:
        faults = [fault for herd in said for fault in herd["faults"]]
        raise CheckFailed(f"{case}: {len(seconds)} of {wanted} have their snapshot: {faults}")
    lists = [r for r in requests if r.verb == "list" and "limit=1" not in r.uri]
    for what, unit, value in (
        (PEAK, "", _peak(requests)),
        (LISTS, "", _peak(lists)),
        ("requests of each", "", len(requests) / wanted),
        ("lists of each", "", len(lists) / wanted),
        ("peak of traffic", "kB/s", traffic.peak / 1e3),
        ("traffic of each", "kB", traffic.total / 1e3 / wanted),
        ("the last request after", "s", max(r.time for r in requests) - began),
    ):
        results.add(Figure(KUBERNETES, case, what, unit), PODWIRE, value)
    results.add(Figure(KUBERNETES, case, CURRENT, "s"), PODWIRE, *seconds)


def _peak(requests: Sequence[Request]) -> int:
    """The most in any second of the clock."""
    return max(Counter(int(r.time) for r in requests).values(), default=0)
