"""Two hundred mixed calls at once, while callers and the daemon are killed; then an audit."""

import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemon.call import Call
from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.networks import Conf, MakePod, held, left_over, netconf
from tests.netns.daemon.test_stop import eventually
from tests.pytest_netns import Namespace, Snapshot, changes, snapshot
from tests.pytest_netns.node import CniResult, Node

RUNTIMES, STEPS = 24, 9
"""So many at once, each so many verbs one after the other: 216, and their repetitions."""
REPETITIONS = 20
PAUSE = 1.0
"""Seconds that a daemon lives at most."""

NETWORKS = [
    netconf("plain", 71, "ptp"),
    netconf("masked", 72, "ptp", dual=True, ipMasq=True),
    netconf("bridged", 73, "bridge", dual=True),
    netconf("guarded", 74, "bridge", ipMasq=True, macspoofchk=True),
]


class Host:
    """The node whose daemon is killed and started again."""

    def __init__(self, node: Node, start: Callable[[], Daemon], program: Path) -> None:
        self.node, self.program = node, program
        self._start = start
        self.daemon = start()
        self.over = threading.Event()

    def strike(self, rng: random.Random) -> None:
        """End the daemon again and again until the storm is over, three times at least."""
        strikes = 0
        while not self.over.wait(rng.uniform(0, PAUSE)) or strikes < 3:
            number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            status, _log = self.daemon.stop(number)
            assert status == (0 if number == signal.SIGTERM else -number)
            self.daemon = self._start()
            strikes += 1

    def start_call(self, verb: str, conf: Conf, runtime: "Runtime") -> Call:
        who, netns = runtime.container_id, runtime.pod.path
        return Call(self.daemon, self.program, verb, conf, container_id=who, netns=netns)


@dataclass
class Runtime:
    """One of many callers: it owns a pod, and knows whether that is attached."""

    host: Host
    pod: Namespace
    container_id: str
    conf: Conf
    rng: random.Random
    result: dict[str, Any] | None = None
    failures: list[CniResult] = field(default_factory=list)

    def work(self) -> None:
        for _ in range(STEPS):
            self.step()

    def step(self) -> None:
        """A verb that makes sense now; one in five is killed on its way."""
        verbs = ["CHECK", "CHECK", "DEL"] if self.result else ["ADD", "ADD", "ADD", "DEL"]
        verb = self.rng.choice([*verbs, "GC", "STATUS", "VERSION"])
        patience = self.rng.uniform(0, 0.03) if self.rng.random() < 0.2 else None
        if verb == "ADD":
            self.add(patience)
        elif verb == "DEL":
            self.delete(patience)
        else:
            self.other(verb, patience)

    def call(self, verb: str, conf: Conf, patience: float | None = None) -> CniResult:
        call = self.host.start_call(verb, conf, self)
        return call.result() if patience is None else call.kill(patience)

    def add(self, patience: float | None) -> None:
        answer = self.call("ADD", self.conf, patience)
        if answer.code == 0:
            self.result = answer.json
        else:
            self.note(answer)
            self.delete(None)  # SPEC 1.1.0, "ADD": after a failure the runtime sends DEL

    def delete(self, patience: float | None) -> None:
        """DEL, repeated until it succeeds."""
        for _ in range(REPETITIONS):
            answer = self.call("DEL", self.conf, patience)
            if answer.code == 0:
                self.result = None
                return
            self.note(answer)
            patience = None
        raise AssertionError(f"DEL fails for good: {answer}")

    def other(self, verb: str, patience: float | None) -> None:
        """A verb that changes nothing of ours; GC lists all that may be there."""
        more: Conf = {"prevResult": self.result} if self.result else {}
        if verb == "GC":
            valid = [{"containerID": f"c{n}", "ifname": "eth0"} for n in range(RUNTIMES)]
            more = {"cni.dev/valid-attachments": valid}
        for _ in range(REPETITIONS):
            answer = self.call(verb, {**self.conf, **more}, patience)
            if answer.code == 0:
                return
            self.note(answer)
            patience = None
        raise AssertionError(f"{verb} fails for good: {answer}")

    def note(self, answer: CniResult) -> None:
        """Only what was killed, or could not be known, may fail."""
        if answer.code != -signal.SIGKILL and answer.json["code"] != 11:
            self.failures.append(answer)


@pytest.fixture
def host(node: Node, podwire_bin: Path, start_daemon: StartDaemon) -> Host:
    """Without a daemon calls go the standalone way."""
    return Host(node, lambda: start_daemon(node), podwire_bin / "podwire")


def test_a_storm(host: Host, make_pod: MakePod, podwire_bin: Path) -> None:
    node, seed = host.node, 20
    strays = [
        Runtime(host, make_pod(), f"stray{n}", conf, random.Random(n))
        for n, conf in enumerate(NETWORKS)
    ]
    for stray in strays:
        stray.add(None)
        stray.delete(None)
    before = state(node)  # with what stays: bridges and the node's settings
    for stray in strays:
        stray.add(None)
    runtimes = [
        Runtime(host, make_pod(), f"c{n}", NETWORKS[n % 4], random.Random(seed + n))
        for n in range(RUNTIMES)
    ]
    with ThreadPoolExecutor(RUNTIMES + 1) as threads:
        striking = threads.submit(host.strike, random.Random(seed))
        working = [threads.submit(runtime.work) for runtime in runtimes]
        errors = [future.exception() for future in working]
        host.over.set()
        striking.result()
    assert errors == [None] * RUNTIMES
    assert [f for runtime in runtimes for f in runtime.failures] == []

    for conf in NETWORKS:  # the strays were in no list of any GC
        collected = {**conf, "cni.dev/valid-attachments": valid(runtimes)}
        assert runtimes[0].call("GC", collected).code == 0
    audit(host, runtimes, podwire_bin)

    for runtime in runtimes[::2]:
        runtime.delete(None)
    for conf in NETWORKS:
        assert runtimes[0].call("GC", {**conf, "cni.dev/valid-attachments": []}).code == 0
    assert left_over(node, podwire_bin, [r.pod for r in (*runtimes, *strays)]) == []
    assert changes(before, state(node)) == []
    status, log = host.daemon.stop()
    assert status == 0
    assert "internal error" not in log


def state(node: Node) -> Snapshot:
    """The node without link-local addresses: they come by themselves, with a bridge's carrier."""
    seen = snapshot(node.ns)
    for link in seen["addresses"]:
        link["addr_info"] = [info for info in link["addr_info"] if info.get("scope") != "link"]
    seen["routes"] = [route for route in seen["routes"] if route["dst"][:4] != "fe80"]
    return seen


def valid(runtimes: list[Runtime]) -> list[dict[str, str]]:
    return [{"containerID": r.container_id, "ifname": "eth0"} for r in runtimes if r.result]


def audit(host: Host, runtimes: list[Runtime], podwire_bin: Path) -> None:
    """What the runtimes believe is what kernel and store say, and it works."""
    alive = [runtime for runtime in runtimes if runtime.result]
    assert alive
    for runtime in alive:
        answer = runtime.call("CHECK", {**runtime.conf, "prevResult": runtime.result})
        assert answer.code == 0, answer
        number = runtime.conf["ipam"]["ranges"][0][0]["subnet"].split(".")[1]
        assert runtime.pod.ping(f"10.{number}.0.1")
    addresses = [ip["address"] for r in alive if r.result for ip in r.result["ips"]]
    assert len(set(addresses)) == len(addresses)
    rows = held(host.node, podwire_bin)
    assert {row["containerID"] for row in rows} == {runtime.container_id for runtime in alive}
    assert len(rows) == len(addresses)
    names = [link["ifname"] for link in host.node.ip("link show") if link["ifname"][:2] == "pw"]
    assert len(names) == len(alive)
    for runtime in runtimes:
        links = {link["ifname"] for link in runtime.pod.ip("link show")}
        assert links == ({"lo", "eth0"} if runtime.result else {"lo"})
    path = host.node.ns.path
    own = str(path), f"net:[{path.stat().st_ino}]"
    kinds = f"{path.parent}/", "net:"

    def strange() -> list[str]:
        """Namespaces of pods that the daemon holds: it lets go of them after its answer."""
        found = (what for what in host.daemon.descriptors if what.startswith(kinds))
        return [what for what in found if what not in own]

    eventually(lambda: strange() == [])
