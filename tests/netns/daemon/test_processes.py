"""The daemon's processes: they share a burst, and what happens to one harms no call of another."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.networks import CONF, MakePod, call_all, failures, left_over
from tests.netns.daemon.test_stop import eventually
from tests.pytest_netns.node import Node

BOTH = min(2, len(os.sched_getaffinity(0)))


def cpu(pid: int) -> int:
    """Clock ticks that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_burst_is_work_for_all(daemon: Daemon, make_pod: MakePod, podwire_bin: Path) -> None:
    assert len(daemon.processes) == BOTH
    pods = [make_pod() for _ in range(24)]
    before = [cpu(pid) for pid in daemon.processes]

    def is_shared() -> bool:
        """Whether no process has had hardly anything to do, in all bursts together."""
        for verb in ("ADD", "DEL"):
            assert failures(call_all(daemon, podwire_bin / "podwire", verb, pods)) == []
        spent = [cpu(pid) - then for pid, then in zip(daemon.processes, before, strict=True)]
        return min(spent) * 10 > sum(spent)

    # On a busy machine one may have to wait for a processor while the other serves all.
    eventually(is_shared)


def test_a_process_dies_in_the_middle_of_a_burst(
    daemon: Daemon, node: Node, make_pod: MakePod, podwire_bin: Path
) -> None:
    assert len(daemon.processes) > 1, "this test needs two processors"
    program, pods = podwire_bin / "podwire", [make_pod() for _ in range(24)]
    with ThreadPoolExecutor(1) as threads:
        burst = threads.submit(call_all, daemon, program, "ADD", pods)
        node.cni("ADD", program, CONF, container_id="first", netns=make_pod().path)
        os.kill(daemon.processes[1], signal.SIGKILL)
        replies = burst.result()
    codes = {0 if r.code == 0 else r.json["code"] for r in replies}
    assert codes <= {0, 11}, "a call that lost its answer is tried again"
    eventually(lambda: "for CNI calls ended" in daemon.log)
    assert len(daemon.processes) == 1
    # What the dead one held is free: its attachment locks and the store.
    assert failures(call_all(daemon, program, "DEL", pods)) == []
    assert failures(call_all(daemon, program, "ADD", pods)) == []
    assert failures(call_all(daemon, program, "DEL", pods)) == []
    assert node.cni("DEL", program, CONF, container_id="first").code == 0
    assert left_over(node, podwire_bin, pods) == []
    status, log = daemon.stop()
    assert status == 0, "all calls were finished"
    assert "stopped; a process had died before" in log


def test_a_process_that_died_is_in_the_status(
    node: Node, start_daemon: StartDaemon, podwired: Path, tmp_path: Path
) -> None:
    (tmp_path / "nodes.yaml").write_text("nodes: []\n")
    path = tmp_path / "podwired.yaml"
    path.write_text(f"node: a\nsource: {{static: {tmp_path}/nodes.yaml}}\nbackend: host-gw\n")
    daemon = start_daemon(node, words=["run", "--config", str(path)])
    words = "1 of 2 processes for CNI calls died"

    def told() -> str:
        return node.run(
            [podwired.with_name("podwirectl"), "status", "--config", path], check=False
        ).stdout

    eventually(lambda: "back end" in told())
    assert words not in told()
    os.kill(daemon.processes[1], signal.SIGKILL)
    eventually(lambda: words in told())
    assert daemon.stop()[0] == 0


def test_a_signal_to_all_of_them_switches_once(daemon: Daemon) -> None:
    """As `systemctl kill` sends it."""
    for level in ("debug", "info"):
        for pid in daemon.processes[::-1]:
            os.kill(pid, signal.SIGUSR1)
        eventually(lambda level=level: f"log level is {level}" in daemon.log)  # type: ignore[misc]
    assert daemon.log.count("log level is") == 2


def test_sigterm_to_all_of_them_finishes_all_calls(
    daemon: Daemon, make_pod: MakePod, podwire_bin: Path
) -> None:
    pods = [make_pod() for _ in range(16)]
    with ThreadPoolExecutor(1) as threads:
        burst = threads.submit(call_all, daemon, podwire_bin / "podwire", "ADD", pods)
        eventually(lambda: "ADD done" in daemon.log)
        for pid in daemon.processes:
            os.kill(pid, signal.SIGTERM)
        assert failures(burst.result()) == []
    assert daemon.process.wait(60) == 0


def test_one_processor_has_one_process(
    node: Node, start_daemon: StartDaemon, make_pod: MakePod, podwire_bin: Path
) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        daemon = start_daemon(node)
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(daemon.processes) == 1
    pods = [make_pod() for _ in range(6)]
    for verb in ("ADD", "DEL"):
        assert failures(call_all(daemon, podwire_bin / "podwire", verb, pods)) == []
    assert daemon.stop()[0] == 0
