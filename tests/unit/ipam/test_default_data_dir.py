"""Where the store is unless something names a folder."""

from pathlib import Path

import pytest

from ipam import DEFAULT_DATA_DIR, ROOTLESS_DATA_DIR, default_data_dir

INITIAL = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"


@pytest.mark.parametrize("mapping", [INITIAL, ROOTLESS, ""])
def test_root_of_the_folder_uses_it(tmp_path: Path, mapping: str) -> None:
    """Also in a user namespace: a node of rootless kind, whose daemon and plugin are in one."""
    (tmp_path / "uid_map").write_text(mapping)
    folder = str(tmp_path / "podwire")
    assert default_data_dir(folder, tmp_path / "uid_map") == folder
    Path(folder).mkdir()
    assert default_data_dir(folder, tmp_path / "uid_map") == folder


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    folder, mapping = str(tmp_path / "podwire"), tmp_path / "uid_map"
    assert default_data_dir(folder, mapping) == folder
    mapping.write_text(ROOTLESS)
    assert default_data_dir(folder, mapping) == ROOTLESS_DATA_DIR
    mapping.write_text(INITIAL)
    assert default_data_dir(folder, mapping) == folder


def test_here() -> None:
    assert DEFAULT_DATA_DIR == "/var/lib/podwire"
