"""Calls that wait for other plugins: bounded for each plugin and in all, and ended with us."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

import pytest

from cni_plugin.errors import TRY_AGAIN, CniError
from daemon.cni_server.plugins import ALL_WAITING_MAX, WAITING_MAX, Plugins
from daemon.cni_server.shifts import THREADS
from daemon.log import Log


def refuse(plugins: Plugins, name: str) -> str:
    with pytest.raises(CniError) as raised, plugins.admitted(name):
        pass
    assert raised.value.code == TRY_AGAIN
    return raised.value.msg


def test_one_plugin_has_not_all_threads(capfd: pytest.CaptureFixture[str]) -> None:
    plugins = Plugins(Log(), 2, 3)
    for _ in range(2):
        with ExitStack() as waiting:
            for _ in range(2):
                waiting.enter_context(plugins.admitted("hung"))
            for _ in range(3):
                assert "2 calls wait for IPAM plugin hung already; try" in refuse(plugins, "hung")
            with plugins.admitted("other"):
                assert "3 calls wait for IPAM plugins already" in refuse(plugins, "third")
            waiting.enter_context(plugins.admitted("other"))
    err = capfd.readouterr().err
    assert err.count("for IPAM plugin hung already") == 2, "once each time that it begins"


def test_the_bounds_leave_threads_to_others() -> None:
    assert WAITING_MAX < ALL_WAITING_MAX < THREADS * 2 / 3


def test_what_runs_is_ended() -> None:
    plugins = Plugins(Log())
    runs = [subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(3)]
    with plugins.watched(runs[0].pid):
        pass
    with plugins.watched(runs[1].pid):
        plugins.stop()
        assert runs[1].wait(60) == -9
    assert runs[0].poll() is None
    with plugins.watched(runs[2].pid):
        assert runs[2].wait(60) == -9
    runs[0].kill()
    runs[0].wait()
