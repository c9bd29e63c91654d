"""Routing that fails at its start, again and again: reported."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from daemon.cni_server.readiness import Readiness
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing import loop
from daemon.routing.loop import Routing
from daemon.status import NodeStatus
from tests.unit.daemon.clusters import settings


class Opened:
    """A source that notes that it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_an_error_that_persists_is_in_status_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(loop, "open_source", fail)
    kept, twice = list[NodeStatus](), threading.Event()

    readiness = Readiness("podwire")

    def publish(status: NodeStatus) -> None:
        readiness.publish(status)
        kept.append(status)
        if len(kept) == 3:
            twice.set()

    with closing(Journal(tmp_path / "journal", MIN_BYTES)) as journal:
        with Routing(settings(), journal, Log(), publish, tmp_path / "podwired.yaml"):
            assert twice.wait(60)
        assert "routing" not in {thread.name for thread in threading.enumerate()}
    assert {status.fault for status in kept} == {"routing fails: RuntimeError('odd')"}
    fault = readiness.fault("podwire")
    assert fault is not None
    assert (fault.code, "RuntimeError('odd')" in fault.msg) == (50, True)
    first, second, *_ = capfd.readouterr().err.splitlines()
    assert "routing restarts: RuntimeError('odd')" in first
    assert "routing restarts (2 times now): RuntimeError('odd')" in second


def test_what_wakes_the_loop_ends_one_pause_alone(tmp_path: Path) -> None:
    """Else routing that cannot start would be tried again without a pause."""
    with closing(Journal(tmp_path / "journal", MIN_BYTES)) as journal:
        made = Routing(settings(), journal, Log(), lambda _status: None, tmp_path / "podwired.yaml")
        made.wake()
        made._pause(60)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(made._wake_up)


def test_a_source_is_closed_where_the_kernel_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a free descriptor, say: it would leak more of them at each attempt."""

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    opened, both = list[Opened](), threading.Event()

    def open_source(*_: object) -> Opened:
        opened.append(Opened())
        return opened[-1]

    monkeypatch.setattr(loop, "open_source", open_source)
    monkeypatch.setattr(loop, "Reconciler", fail)

    def publish(_: NodeStatus) -> None:
        if len(opened) == 2:
            both.set()

    with (
        closing(Journal(tmp_path / "journal", MIN_BYTES)) as journal,
        Routing(settings(), journal, Log(), publish, tmp_path / "podwired.yaml"),
    ):
        assert both.wait(60)
    assert all(source.is_closed for source in opened)
