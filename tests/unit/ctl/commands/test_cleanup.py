"""The question of `podwirectl cleanup`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.unit.ctl.conftest import Run


class Terminal(io.StringIO):
    """Somebody who types this; nothing is Ctrl-D."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("typed", ["", "\n", "n\n"])
def test_what_is_not_confirmed_is_not_done(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("ctl.commands.cleanup.clean_node", lambda *_, **__: pytest.fail("done"))
    status, _out, err = run("cleanup", "--config", config)
    assert (status, err) == (1, "podwirectl: nothing was removed\n")
