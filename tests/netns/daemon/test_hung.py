"""A daemon that hangs: calls are taken back from it in time, and never executed twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.netns.daemon.conftest import Daemon
from tests.netns.daemon.networks import CONF, MakePod, failures, held, left_over
from tests.netns.daemon.test_stop import eventually
from tests.pytest_netns.node import CniResult
from tests.unit.shim.conftest import compile_shim


@pytest.fixture
def hasty(tmp_path: Path, podwire_bin: Path) -> Path:
    """The shim, which waits a second for the beginning of a call, beside podwire's Python."""
    python = (podwire_bin / "podwire").resolve().with_name("python3")
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    return compile_shim(tmp_path / "podwire", "-DBEGIN_SECONDS=1")


def test_calls_go_on_while_every_process_is_stopped(
    daemon: Daemon, make_pod: MakePod, podwire_bin: Path, hasty: Path
) -> None:
    pods = [make_pod() for _ in range(2)]

    def call_each(verb: str) -> list[CniResult]:
        env = {"ASAN_OPTIONS": "detect_leaks=0"}  # the shim leaves its buffers to its end
        return [
            daemon.cni(verb, hasty, CONF, container_id=f"c{n}", netns=pod.path, env=env)
            for n, pod in enumerate(pods)
        ]

    for pid in daemon.processes:
        os.kill(pid, signal.SIGSTOP)
    assert failures(call_each("VERSION")) == failures(call_each("ADD")) == []
    assert all(pod.ping("10.66.0.1") for pod in pods)
    for pid in daemon.processes:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: daemon.log.count("its caller took it back") == len(pods))
    assert "ADD" not in daemon.log
    assert {row["containerID"] for row in held(daemon.node, podwire_bin)} == {"c0", "c1"}

    def serves_again() -> bool:
        """Begun within the second that the shim waits; else it has the call made elsewhere."""
        assert failures(call_each("DEL")) == []
        return daemon.log.count("DEL done") >= len(pods)

    eventually(serves_again)
    assert left_over(daemon.node, podwire_bin, pods) == []
