"""An error that persists neither fills the log nor keeps a CPU busy."""

from __future__ import annotations

import pytest

from daemon.log import Log
from daemon.routing.restarts import PAUSE, PAUSE_MAX, Restarts


def test_pauses_grow_and_lines_are_few(capfd: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    restarts, pauses = Restarts(Log(), lambda: now[0]), list[float]()
    while now[0] < 700:  # ten minutes
        pauses.append(restarts.note(ValueError("odd")))
        now[0] += pauses[-1]
    assert pauses[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert max(pauses) == pauses[-1] == PAUSE_MAX
    lines = capfd.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 11
    assert "routing begins anew: ValueError('odd')" in lines[0]
    assert "times now): ValueError('odd')" in lines[-1]
    now[0] += 1000
    assert restarts.note(ValueError("new")) == PAUSE
    assert "routing begins anew: ValueError('new')" in capfd.readouterr().err
