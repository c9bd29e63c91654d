"""What the network takes of the start of a pod: RunPodSandbox of containerd, asked by crictl."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.lineup import Lineup
from tests.bench.networks import PTP_PLAIN, Conf, podwire_conf, reference_conf
from tests.bench.programs import install_go
from tests.bench.results import FLOOR, PEER, PODWIRE, Figure, Results
from tests.bench.rounds import Say, in_turns
from tests.bench.routing.member import wait_for
from tests.bench.sizes import Sizes
from tests.e2e.images import make_images
from tests.e2e.machine import Machine
from tests.e2e.programs import fetch

SANDBOX = "sandbox"
CRICTL = "sigs.k8s.io/cri-tools/cmd/crictl@v1.34.0"
RUN, STOP = "RunPodSandbox", "StopPodSandbox"
_HOST_NETWORK = "the host's network"
_SOCKET = "unix:///run/containerd/containerd.sock"
_ROUNDS = 60
"""The same for a quick run: what is looked for is a twentieth of what a call takes."""
_NODE = 2  # the namespace mode of the runtime's API: the node's own
_EMPTY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    const char *verb = getenv("CNI_COMMAND");
    puts(verb && !strcmp(verb, "VERSION")
        ? "{\"cniVersion\": \"1.0.0\", \"supportedVersions\": [\"1.0.0\"]}"
        : "{\"cniVersion\": \"1.0.0\", \"interfaces\": [{\"name\": \"eth0\", \"sandbox\": \"/\"}],"
          "\"ips\": [{\"interface\": 0, \"address\": \"10.128.0.2/16\"}]}");
    return 0;
}
"""
"""A plugin that does nothing: what the runtime itself does for a pod with a network."""


def with_network(what: str) -> Figure:
    """The time of a call for a pod with a network of its own."""
    return Figure(SANDBOX, PTP_PLAIN.case, what)


WITHOUT = Figure(SANDBOX, _HOST_NETWORK, RUN)


def sandboxes(lineup: Lineup, results: Results, _sizes: Sizes, say: Say) -> None:
    """Pods with each plugin and without a network, in turns; another pod of each is there."""
    say(f"{SANDBOX}: preparing")
    crictl, why = install_go(CRICTL, lineup.world.work_dir.parent / "bench-tools")
    if crictl is None:
        say(f"{SANDBOX}: not measured: {why}")
        return
    with lineup.world.host(SANDBOX) as host, ExitStack() as stack:
        machine = Machine(host.node, SANDBOX, host.work_dir / "machine")
        stack.callback(machine.stop)
        machine.folder.mkdir()
        fetch()
        machine.boot(make_images(machine.folder)[:1], _handlers())
        _install(lineup, machine)
        asked = _Asked(machine, crictl)
        names = (PODWIRE, PEER, FLOOR, _HOST_NETWORK)
        for name in names:
            asked.run(name)
        for number in range(_ROUNDS + 1):
            say(f"{SANDBOX}: round {number} of {_ROUNDS}")
            for name in in_turns(names, number):
                sandbox, run = asked.run(name)
                stop = asked.end(sandbox)
                if number and name == _HOST_NETWORK:
                    results.add(WITHOUT, FLOOR, run)
                elif number:
                    results.add(with_network(RUN), name, run)
                    results.add(with_network(STOP), name, stop)


def _handlers() -> str:
    """Settings of containerd: for each contender a runtime with CNI configurations of its own."""
    return "".join(
        f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]\n'
        f'  runtime_type = "io.containerd.runc.v2"\n  cni_conf_dir = "/etc/cni/{name}"\n'
        for name in (PODWIRE, PEER, FLOOR)
    )


def _install(lineup: Lineup, machine: Machine) -> None:
    """All plugins, their configurations, and podwire's daemon."""
    programs = lineup.programs
    empty = machine.folder / "empty"
    compiler = ["gcc", "-static", "-O2", "-x", "c", "-o", str(empty), "-"]
    subprocess.run(compiler, input=_EMPTY.encode(), check=True)
    reference = [programs.reference / name for name in ("ptp", "host-local", "loopback")]
    machine.run("cp", *reference, empty, programs.podwire, "/opt/cni/bin/")
    confs: dict[str, Conf] = {
        PODWIRE: podwire_conf(PTP_PLAIN),
        PEER: reference_conf(PTP_PLAIN, Path("/run/host-local")),
        FLOOR: {"name": "empty", "type": "empty"},
    }
    for name, conf in confs.items():
        network = {"cniVersion": "1.0.0", "name": conf["name"], "plugins": [conf]}
        machine.run("mkdir", "--parents", f"/etc/cni/{name}")
        machine.write(f"/etc/cni/{name}/10-bench.conflist", json.dumps(network))
    if programs.daemon:
        machine.spawn("podwired", [*machine.enter, programs.daemon, "serve"])
        socket = "/run/podwire/podwire.sock"
        wait_for("podwired", lambda: machine.run("find", socket, check=False) != "", gap=0.1)


class _Asked:
    """The container runtime of a machine."""

    def __init__(self, machine: Machine, crictl: Path) -> None:
        self._machine, self._number = machine, 0
        self._crictl: list[str | Path] = [crictl, "-r", _SOCKET, "-i", _SOCKET]

    def run(self, name: str) -> tuple[str, float]:
        """A pod's sandbox, and the milliseconds that it took."""
        self._number += 1
        pod = f"{SANDBOX}-{self._number}"
        conf: Conf = {"metadata": {"name": pod, "namespace": "default", "uid": pod, "attempt": 1}}
        options = ["--runtime", name]
        if name == _HOST_NETWORK:
            conf["linux"] = {"security_context": {"namespace_options": {"network": _NODE}}}
            options = []
        file = self._machine.folder / f"{pod}.json"
        file.write_text(json.dumps({"linux": {}, **conf}))
        return _timed(lambda: self._call("runp", *options, file))

    def end(self, sandbox: str) -> float:
        """The milliseconds until it has ended."""
        milliseconds = _timed(lambda: self._call("stopp", sandbox))[1]
        self._call("rmp", sandbox)
        return milliseconds

    def _call(self, *words: str | Path) -> str:
        return self._machine.run(*self._crictl, *words).strip()


def _timed(work: Callable[[], str]) -> tuple[str, float]:
    began = time.perf_counter()
    done = work()
    return done, (time.perf_counter() - began) * 1e3
