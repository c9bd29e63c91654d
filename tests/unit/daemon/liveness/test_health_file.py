"""What a container's probes read, and that they understand it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from daemon.liveness import health_file as module
from daemon.liveness.health_file import HOLDS, HealthFile
from daemon.log import Log
from tests import ROOT

PROBE = ROOT / "packaging" / "image" / "podwire-probe"


class Since:
    """The clock, so many seconds away from the machine's."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self.late = 0.0

    def clock_gettime(self, clock: int) -> float:
        return time.clock_gettime(clock) + self.late


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Since:
    made = Since()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "health"


def made(path: Path) -> HealthFile:
    return HealthFile(Log(), {"PODWIRE_HEALTH": str(path)})


def probe(path: Path, kind: str) -> tuple[int, str]:
    """As the kubelet does, with nothing beside the variable."""
    argv, env = ["sh", str(PROBE), kind], {"PODWIRE_HEALTH": str(path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def probes(path: Path) -> tuple[tuple[int, str], tuple[int, str]]:
    return probe(path, "alive"), probe(path, "ready")


def test_probes_see_what_was_written_last(path: Path) -> None:
    file = made(path)
    starting = 1, "podwired has just started"
    assert probes(path) == (starting, starting)
    file.write("", "")
    assert probes(path) == ((0, "alive"), (0, "ready"))
    file.write("", "this node is not ready: no\nlink \udcff \\n $(x)")
    assert probes(path) == ((0, "alive"), (1, "this node is not ready: no link ? \\n $(x)"))
    file.write("no progress: routing, calls of process 2", "")
    assert probes(path) == ((1, "no progress: routing, calls of process 2"), (0, "ready"))
    file.write("", "x" * 10_000)
    assert probe(path, "alive") == (0, "alive")
    assert probe(path, "ready")[0] == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert probe(path, "")[0] == 2


def test_what_an_earlier_daemon_wrote_says_nothing(path: Path) -> None:
    made(path).write("", "")
    made(path)
    assert probe(path, "alive") == (1, "podwired has just started")


def test_a_daemon_that_does_not_report_is_not_alive(path: Path, clock: Since) -> None:
    file = made(path)
    clock.late = -HOLDS - 2
    file.write("", "")
    silent = 1, "no progress: podwired does not report"
    assert probes(path) == (silent, silent)
    clock.late = -HOLDS / 2
    file.write("", "")
    assert probes(path) == ((0, "alive"), (0, "ready"))


def test_it_is_written_when_it_changes_and_before_it_is_void(path: Path, clock: Since) -> None:
    file = made(path)
    file.write("", "")
    before = path.read_text()
    clock.late = 1.0
    file.write("", "")
    assert path.read_text() == before
    file.write("", "not ready")
    assert path.read_text() != before
    path.unlink()  # by another program
    clock.late = HOLDS / 2
    file.write("", "not ready")
    assert probe(path, "alive") == (0, "alive")


def test_a_file_that_cannot_be_written_is_logged_once(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path.mkdir()
    file = made(path)
    for _ in range(3):
        file.write("", "")
    assert capfd.readouterr().err.count(f"the health {path} cannot be written: Is a dir") == 1
    path.rmdir()
    file.write("", "")
    assert probe(path, "alive") == (0, "alive")


def test_without_a_name_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for env in ({}, {"PODWIRE_HEALTH": ""}):
        HealthFile(Log(), env).write("no progress: routing", "x")
    assert list(tmp_path.iterdir()) == []
