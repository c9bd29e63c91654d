"""Routing that fails at its start, or again and again: reported, without filling the log."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from daemon.cni_server.readiness import Readiness
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing import loop
from daemon.routing.loop import RESTART_PAUSE, RESTART_PAUSE_MAX, Restarts, Routing
from daemon.status import NodeStatus
from tests.unit.daemon.clusters import settings


def test_an_error_that_persists_is_in_the_status_and_once_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(loop, "open_source", fail)
    kept, twice = list[NodeStatus](), threading.Event()

    def keep(status: NodeStatus) -> None:
        kept.append(status)
        if len(kept) == 3:
            twice.set()

    readiness = Readiness("podwire", keep)
    with closing(Journal(tmp_path / "journal", MIN_BYTES)) as journal:
        router = Routing(settings(), journal, Log(), readiness.publish)
        router.start()
        assert twice.wait(60)
        assert router.stop()
    assert {status.fault for status in kept} == {"routing fails: RuntimeError('odd')"}
    fault = readiness.fault("podwire")
    assert fault is not None
    assert (fault.code, "RuntimeError('odd')" in fault.msg) == (50, True)
    [line] = capfd.readouterr().err.splitlines()
    assert "routing restarts: RuntimeError('odd')" in line


def test_pauses_grow_and_lines_are_few(capfd: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    restarts, pauses = Restarts(Log()), list[float]()
    while now < 700:  # ten minutes
        pauses.append(restarts.note(ValueError("odd"), now))
        now += pauses[-1]
    assert pauses[:3] == [RESTART_PAUSE, 2 * RESTART_PAUSE, 4 * RESTART_PAUSE]
    assert max(pauses) == pauses[-1] == RESTART_PAUSE_MAX
    lines = capfd.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 11
    assert "routing restarts: ValueError('odd')" in lines[0]
    assert "times now): ValueError('odd')" in lines[-1]
    now += 1000
    assert restarts.note(ValueError("new"), now) == RESTART_PAUSE
    assert "routing restarts: ValueError('new')" in capfd.readouterr().err
