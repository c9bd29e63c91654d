"""Ends and beginnings of the daemon under load: calls are answered, wait, or can be repeated."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.netns.daemon.call import Call
from tests.netns.daemon.conftest import SECONDS, Daemon, StartDaemon
from tests.netns.daemon.networks import CONF, MakePod, call_all, failures, held, left_over
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node


def test_many_at_once_come_and_go(
    daemon: Daemon, node: Node, make_pod: MakePod, podwire_bin: Path
) -> None:
    pods = [make_pod() for _ in range(24)]
    added = call_all(daemon, podwire_bin / "podwire", "ADD", pods)
    assert failures(added) == []
    assert len({a.addresses[0] for a in added}) == len(pods)
    assert all(pod.ping("10.66.0.1") and pod.ping("fd66::1") for pod in pods[:4])
    assert failures(call_all(daemon, podwire_bin / "podwire", "DEL", pods)) == []
    assert left_over(node, podwire_bin, pods) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_daemon_ends_in_the_middle_of_a_burst(
    daemon: Daemon,
    node: Node,
    make_pod: MakePod,
    podwire_bin: Path,
    start_daemon: StartDaemon,
    number: signal.Signals,
) -> None:
    program = podwire_bin / "podwire"
    pods = [make_pod() for _ in range(20)]
    with ThreadPoolExecutor(1) as threads:
        burst = threads.submit(call_all, daemon, program, "ADD", pods)
        node.cni("ADD", program, CONF, container_id="first", netns=make_pod().path)
        status, _log = daemon.stop(number)
        replies = burst.result()
    assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    codes = {0 if r.code == 0 else r.json["code"] for r in replies}
    assert codes <= ({0} if number == signal.SIGTERM else {0, 11})
    assert failures(call_all(start_daemon(node), program, "DEL", pods)) == []
    assert node.cni("DEL", program, CONF, container_id="first").code == 0
    assert left_over(node, podwire_bin, pods) == []


def test_no_call_fails_while_the_daemon_restarts(
    node: Node, make_pod: MakePod, podwire_bin: Path, start_daemon: StartDaemon
) -> None:
    """A call that finds no daemon is Python's; one that a daemon has taken is finished."""
    program, pods = podwire_bin / "podwire", [make_pod() for _ in range(24)]
    with ThreadPoolExecutor(1) as threads:
        daemons = [start_daemon(node)]
        for verb in ("ADD", "DEL"):
            burst = threads.submit(call_all, daemons[-1], program, verb, pods)
            for _ in range(2):
                assert daemons[-1].stop()[0] == 0
                daemons.append(start_daemon(node))
            assert failures(burst.result()) == []
    assert left_over(node, podwire_bin, pods) == []


GATE = """\
#!/bin/bash
# An IPAM plugin that notes each ADD, and answers it when it is let go.
folder=${0%/*}
if [[ $CNI_COMMAND == ADD ]]; then
    echo "$CNI_CONTAINERID" >>"$folder/asked"
    read -r _ <"$folder/gate"
fi
echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.67.0.9/24"}]}'
"""


class Gate:
    """The folder of that plugin, and podwire beside it."""

    def __init__(self, folder: Path, podwire_bin: Path) -> None:
        self.conf = {**CONF, "name": "gated", "ipMasq": False, "ipam": {"type": "gated"}}
        self.podwire = folder / "podwire"
        self.podwire.symlink_to((podwire_bin / "podwire").resolve())
        self._folder = folder
        (folder / "gated").write_text(GATE)
        (folder / "gated").chmod(0o755)
        os.mkfifo(folder / "gate")

    @property
    def asked(self) -> list[str]:
        """The containers of the ADDs that came to the plugin."""
        noted = self._folder / "asked"
        return noted.read_text().split() if noted.exists() else []

    def open(self) -> None:
        """Let one ADD go."""
        (self._folder / "gate").write_text("go\n")


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "it never became so"
        time.sleep(0.01)


def held_by(daemon: Daemon, pod: Namespace) -> int:
    """How many descriptors of the pod's namespace the daemon has."""
    # The name's file, or that of nsfs where its mount is not the reader's.
    names = str(pod.path), f"net:[{pod.path.stat().st_ino}]"
    return sum(daemon.descriptors.count(name) for name in names)


def test_a_call_whose_caller_died_while_it_waited_is_not_made(
    daemon: Daemon, pod: Namespace, podwire_bin: Path, tmp_path: Path
) -> None:
    """The runtime has sent DEL by then, and thinks that the attachment is gone."""
    gate = Gate(tmp_path, podwire_bin)
    first = Call(daemon, gate.podwire, "ADD", gate.conf, netns=pod.path)
    eventually(lambda: gate.asked == ["c1"])
    held = held_by(daemon, pod)
    abandoned = Call(daemon, gate.podwire, "ADD", gate.conf, netns=pod.path)
    eventually(lambda: held_by(daemon, pod) > held)  # the daemon has both calls
    assert abandoned.kill(after=0.3).code == -signal.SIGKILL
    delete = Call(daemon, gate.podwire, "DEL", gate.conf, netns=pod.path)
    gate.open()
    assert [first.result().code, delete.result().code] == [0, 0]
    eventually(lambda: "went away while its call waited" in daemon.log)
    assert gate.asked == ["c1"]
    assert [link["ifname"] for link in pod.ip("link show")] == ["lo"]


def test_signals_that_come_thick_and_fast(
    daemon: Daemon, make_pod: MakePod, podwire_bin: Path
) -> None:
    pods = [make_pod() for _ in range(8)]
    with ThreadPoolExecutor(1) as threads:
        burst = threads.submit(call_all, daemon, podwire_bin / "podwire", "ADD", pods)
        while not burst.done():
            daemon.process.send_signal(signal.SIGUSR1)
        assert failures(burst.result()) == []
    assert failures(call_all(daemon, podwire_bin / "podwire", "DEL", pods)) == []
    status, log = daemon.stop()
    assert status == 0
    assert "log level is debug" in log


def test_nobody_reads_the_log(
    node: Node, podwired: Path, pod: Namespace, podwire_bin: Path
) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen([*node.enter, podwired, "serve"], stderr=writer, env={})
    os.close(writer)
    assert b"serving" in os.read(reader, 1000)
    os.close(reader)
    for verb in ("ADD", "DEL", "STATUS") * 3:
        answer = node.cni(verb, podwire_bin / "podwire", CONF, netns=pod.path)
        assert answer.code == 0, answer
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0


def test_the_store_is_removed_under_the_daemon(
    daemon: Daemon, node: Node, make_pod: MakePod, podwire_bin: Path
) -> None:
    """Also with its folder: daemon and Python must then agree on one store and one lock."""
    program, pods = podwire_bin / "podwire", [make_pod(), make_pod()]
    answers = [daemon.cni("ADD", program, CONF, container_id="c0", netns=pods[0].path)]
    node.run(["rm", "-r", "/var/lib/podwire"])
    answers.append(daemon.cni("ADD", program, CONF, container_id="c1", netns=pods[1].path))
    assert failures(answers) == []
    assert answers[0].addresses != answers[1].addresses
    assert {row["containerID"] for row in held(node, podwire_bin)} == {"c0", "c1"}
    assert failures(call_all(daemon, program, "DEL", pods)) == []
    assert left_over(node, podwire_bin, pods) == []


def test_calls_leave_no_descriptor(
    daemon: Daemon, node: Node, pod: Namespace, make_pod: MakePod, podwire_bin: Path
) -> None:
    def descriptors() -> int:
        """The least of some counts, of all processes: a connection may still be closing."""
        counts = []
        for _ in range(10):
            counts.append(len(daemon.descriptors))
            time.sleep(0.05)
        return min(counts)

    program = podwire_bin / "podwire"

    def rounds(count: int) -> None:
        for _ in range(count):
            assert node.cni("ADD", program, CONF, netns=pod.path).code == 0
            assert node.cni("DEL", program, CONF, netns=pod.path).code == 0
            assert node.cni("ADD", program, CONF, netns="/etc/passwd").code == 1

    pods = [make_pod() for _ in range(12)]
    for verb in ("ADD", "DEL"):  # at once: every process has its store open
        assert failures(call_all(daemon, program, verb, pods)) == []
    rounds(10)
    before = descriptors()
    rounds(30)
    # Threads that were started for a burst end, with their sockets, when they are not needed.
    eventually(lambda: descriptors() <= before)
