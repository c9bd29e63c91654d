"""The index of the node's stores."""

from pathlib import Path

import pytest

from cni_plugin.store_index import enter_store, find_stores
from ipam.store import open_store
from tests.unit.cni_plugin import namespaces


def store(folder: Path) -> Path:
    open_store(folder).close()
    return folder


def test_without_an_index_the_configurations_own_counts(tmp_path: Path) -> None:
    assert find_stores(tmp_path / "none", tmp_path / "own") == [tmp_path / "own"]


def test_stores_are_entered_once_and_found(tmp_path: Path) -> None:
    index = tmp_path / "run" / "stores"
    one, two = store(tmp_path / "one"), store(tmp_path / "two")
    for folder in (two, one, two, tmp_path / "gone"):
        enter_store(index, folder)
    assert len(list(index.iterdir())) == 3
    assert index.stat().st_mode & 0o777 == 0o700
    assert find_stores(index, one) == [one, two]
    assert find_stores(index, two) == [two, one]
    # One that is not made yet is not made for a DEL.
    assert set(find_stores(index, tmp_path / "new")) == {one, two}


def test_nodes_of_one_machine_have_their_own(tmp_path: Path) -> None:
    enter_store(tmp_path, store(tmp_path / "theirs"))
    with namespaces.elsewhere():
        assert find_stores(tmp_path, tmp_path / "own") == [tmp_path / "own"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        enter_store(tmp_path / "file" / "stores", tmp_path)
