"""Work in a process of its own: its result or its error is the caller's, its memory is not."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from daemon.commands.options import Unusable, settings_of
from daemon.config.schema import load_settings
from daemon.elsewhere import done_elsewhere

CONF = b"node: n1\nsource: {static: /etc/podwire/nodes.yaml}\nallowOverlap: [10.0.0.0/8]\n"


def test_settings_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "podwired.yaml"
    file.write_bytes(CONF)
    assert done_elsewhere(partial(settings_of, file)) == load_settings(file)


def test_an_error_keeps_its_words(tmp_path: Path) -> None:
    file = tmp_path / "podwired.yaml"
    file.write_bytes(b"node: n1\nbackend: smoke\n")
    with pytest.raises(Unusable) as here:
        settings_of(file)
    with pytest.raises(Unusable) as elsewhere:
        done_elsewhere(partial(settings_of, file))
    assert str(elsewhere.value) == str(here.value)
    assert "podwired.yaml:" in str(here.value)


def test_nothing_of_it_stays_here() -> None:
    def work() -> int:
        sys.modules["left_behind"] = sys
        return os.getpid()

    pid = done_elsewhere(work)
    assert pid != os.getpid()
    assert "left_behind" not in sys.modules
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_one_is_told() -> None:
    with pytest.raises(ChildProcessError, match="status 9"):
        done_elsewhere(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_what_cannot_be_handed_over_is_told() -> None:
    with pytest.raises(ChildProcessError):
        done_elsewhere(lambda: (n for n in "x"))
