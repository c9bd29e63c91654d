"""`allowOverlap` is taken while the daemon runs; everything else waits for the next start."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from daemon.config.load import load_settings
from daemon.config.reload import AllowedOverlap
from daemon.log import Log

BASE = "node: node-1\nsource: {static: /etc/podwire/nodes.yaml}\n"
ALLOWED = (ip_network("10.0.0.0/8"),)


class Edited:
    """A configuration, and what reads it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("")
        self.overlap = AllowedOverlap(path, load_settings(path), Log())

    def write(self, more: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(BASE + more)
        fresh.rename(self.path)


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path / "podwired.yaml")


def test_a_change_is_taken_once_the_file_rests(
    edited: Edited, capfd: pytest.CaptureFixture[str]
) -> None:
    assert [edited.overlap.poll() for _ in range(3)] == [None] * 3
    edited.write("allowOverlap: [10.0.0.0/8]\n")
    assert [edited.overlap.poll() for _ in range(3)] == [None, ALLOWED, None]
    edited.write("")
    assert [edited.overlap.poll() for _ in range(3)] == [None, (), None]
    assert "restart" not in capfd.readouterr().err


def test_what_was_changed_before_the_first_poll_counts(edited: Edited) -> None:
    edited.write("allowOverlap: [10.0.0.0/8]\n")
    assert [edited.overlap.poll() for _ in range(2)] == [None, ALLOWED]


def test_other_keys_wait_for_a_restart(edited: Edited, capfd: pytest.CaptureFixture[str]) -> None:
    edited.write("mtu: 1400\nallowOverlap: [10.0.0.0/8]\n")
    assert [edited.overlap.poll() for _ in range(2)] == [None, ALLOWED]
    assert "podwired.yaml has changed: restart the daemon" in capfd.readouterr().err


def test_a_mistake_or_a_missing_file_changes_nothing(
    edited: Edited, capfd: pytest.CaptureFixture[str]
) -> None:
    edited.write("allowOverlap: [10.0.0.1/8]\n")
    assert [edited.overlap.poll() for _ in range(3)] == [None] * 3
    assert capfd.readouterr().err.count("allowOverlap") == 1
    edited.path.unlink()
    assert [edited.overlap.poll() for _ in range(3)] == [None] * 3
    os.mkfifo(edited.path)  # opening it would wait for a writer
    assert [edited.overlap.poll() for _ in range(3)] == [None] * 3
    edited.write("allowOverlap: [10.0.0.0/8]\n")
    assert [edited.overlap.poll() for _ in range(2)] == [None, ALLOWED]
