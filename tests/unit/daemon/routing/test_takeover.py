"""Podwire's own conflists of before, and those of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.config.schema import ConflistSettings
from daemon.installer.manifest import aside, load_manifest
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing.conflist import MARK
from daemon.routing.reporter import Reporter
from daemon.routing.takeover import Takeover
from tests.unit.daemon.clusters import settings


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_conflist_of_another_path_is_removed(tmp_path: Path, exclusive: bool) -> None:
    folder = tmp_path / "net.d"
    folder.mkdir()
    contents = {
        "05-podwire.conflist": {"name": "pods", MARK: "x", "plugins": []},
        "20-podwire.conflist": {"name": "pods", MARK: "x", "plugins": []},
        "90-pods.conflist": {"name": "another", MARK: "x", "plugins": []},
        "99-flannel.conflist": {},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    own = folder / "20-podwire.conflist"
    conflist = ConflistSettings(path=own, name="pods", exclusive=exclusive)
    found = settings().model_copy(update={"data_dir": tmp_path, "conflist": conflist})
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log())
    Takeover(found, reporter).check_conflists()
    others = [folder / name for name in ("90-pods.conflist", "99-flannel.conflist")]
    left = [aside(path) if exclusive else path for path in others]
    assert sorted(folder.iterdir()) == [own, *left]
    assert not reporter.faults["takeover"]
    assert load_manifest(tmp_path).conflists == (others if exclusive else [])
