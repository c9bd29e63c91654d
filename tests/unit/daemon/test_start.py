"""The first moments of the daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_plugin.errors import CniError
from daemon.cni_server.listener import Listener
from tests import ROOT

SIGNALLED = """
import os, signal, sys
import daemon.__main__ as program
real = program.build_parser
def parser(chosen):
    assert "daemon.run" not in sys.modules
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    return real(chosen)
program.build_parser = parser
sys.exit(program.main())
"""


def start(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The daemon's program, which is told to switch its log and to end before it is loaded."""
    return subprocess.run(
        [sys.executable, "-c", SIGNALLED, *words],
        env={"PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_signals_before_anything_is_loaded(tmp_path: Path) -> None:
    done = start("serve", "--socket", f"{tmp_path}/s", "--data-dir", f"{tmp_path}/d")
    assert done.returncode == 0, done.stderr
    assert "log level is debug" in done.stderr
    assert done.stderr.endswith("stopped\n")


def test_signals_kill_neither_of_the_daemons() -> None:
    for verb in ("serve", "run"):
        done = start(verb, "--no-such-option")
        assert done.returncode == 2, "it has come to its complaint"


WATCHED = """
import os, sys
import daemon.__main__ as program, daemon.liveness.watchdog
daemon.liveness.watchdog.LIMIT = 2.0
sys.exit(program.main())
"""


def test_a_process_that_is_stopped_is_no_longer_vouched_for(tmp_path: Path) -> None:
    """systemd's watchdog is fed by the first process, on behalf of all of them."""
    places = ("--socket", f"{tmp_path}/s", "--data-dir", f"{tmp_path}/d")
    env = {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": f"{tmp_path}/n", "WATCHDOG_USEC": "1"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(env["NOTIFY_SOCKET"])
        manager.settimeout(60)
        command = [sys.executable, "-c", WATCHED, "serve", *places]
        with (
            subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process,
            ExitStack() as stack,
        ):
            # A stopped child would keep it from ending, and the test from failing.
            stack.callback(process.kill)
            assert [manager.recv(100) for _ in range(3)] == [b"READY=1", *[b"WATCHDOG=1"] * 2]
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert process.stderr is not None
            if children:  # a machine with one processor has none
                os.kill(int(children[0]), signal.SIGSTOP)
                lines = iter(process.stderr)
                assert any("no progress: calls of process 2" in line for line in lines)
                os.kill(int(children[0]), signal.SIGCONT)
                while manager.recv(100) != b"WATCHDOG=1":
                    pass
            process.terminate()
            assert process.wait(60) == 0


def test_a_socket_whose_path_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    fits = tmp_path / ("y" * (107 - len(f"{tmp_path}/")))
    with Listener() as listener:
        with pytest.raises(CniError, match=f"socket {path} .* has {len(str(path))} bytes.* 107 at"):
            listener.listen(path)
        listener.listen(fits)
        assert fits.is_socket()


FORKED = """
import sys
import daemon.__main__ as program
from daemon.cni_server.processes import Processes
def fork(self, count, work):
    print(*sys.modules, sep="\\n")
    sys.exit(0)
Processes.fork = fork
program.main()
"""


def test_processes_for_calls_are_forked_without_what_they_do_not_need(tmp_path: Path) -> None:
    """A forked process keeps its copies of them: a third of its memory."""
    settings = {
        "node": "node-1",
        "source": {"kubernetes": {"clusterCIDRs": ["10.244.0.0/16"], "kubeconfig": "/none"}},
        "dataDir": f"{tmp_path}/data",
        "socket": f"{tmp_path}/socket",
        "statusFile": f"{tmp_path}/status.json",
    }
    (tmp_path / "podwired.yaml").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-c", FORKED, "run", "--config", tmp_path / "podwired.yaml"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "daemon.cni_server.server" in loaded
    heavy = ("daemon.routing.loop", "daemon.policy.controller", "prometheus_client", "pydantic")
    clients = ("httpx2", "ssl", "yaml")
    assert loaded.isdisjoint({*heavy, *clients})
