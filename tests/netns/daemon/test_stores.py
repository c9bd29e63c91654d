"""Stores that calls with the daemon share with calls without it, and what its start frees."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.networks import CONF, MakePod, call_all, failures, held, left_over
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node

ALONE = {"PODWIRE_SOCKET": "/nowhere"}


@pytest.mark.parametrize("with_daemon", ["ADD", "DEL"])
def test_a_store_that_only_one_of_both_names(
    node: Node, daemon: Daemon, pod: Namespace, podwire_bin: Path, with_daemon: str
) -> None:
    """An ADD with dataDir, a DEL without, one of them with the daemon."""
    program = podwire_bin / "podwire"
    there = {**CONF, "ipam": {**CONF["ipam"], "dataDir": "/var/lib/other"}}
    for verb, conf in (("ADD", there), ("DEL", CONF)):
        env = {} if verb == with_daemon else ALONE
        answer = daemon.cni(verb, program, conf, netns=pod.path, env=env)
        assert answer.code == 0, answer
    words: list[str | Path] = [podwire_bin / "podwire-ipam", "--data-dir", "/var/lib/other", "list"]
    assert node.run(words).stdout == "no address is allocated\n"
    assert left_over(node, podwire_bin, [pod]) == []


def test_a_start_frees_what_pods_had_that_are_gone(
    node: Node, make_pod: MakePod, start_daemon: StartDaemon, podwire_bin: Path
) -> None:
    pods = [make_pod() for _ in range(3)]
    daemon = start_daemon(node)
    assert not failures(call_all(daemon, podwire_bin / "podwire", "ADD", pods))
    daemon.stop(signal.SIGKILL)
    for pod in pods[1:]:
        pod.vanish()
    assert len(held(node, podwire_bin)) == 6
    log = start_daemon(node).log
    assert {row["containerID"] for row in held(node, podwire_bin)} == {"c0"}
    assert "container c1 interface eth0 is gone without a DEL" in log
    assert pods[0].ping("10.66.0.1")
