"""The saved lease: of this boot and cluster, or not used at all."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from daemon.log import Log
from daemon.sources.etcd.lease import LeaseFile, SavedLease
from ipam.boot import read_boot_id

SUBNETS = (ip_network("10.244.3.0/24"), ip_network("fd00:10:244:3::/64"))


def open_file(path: Path, identity: str = "etcd /podwire") -> LeaseFile:
    return LeaseFile(path, identity, "node-1", Log())


def test_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data" / "held.json"
    assert open_file(path).load() is None
    open_file(path).save(SUBNETS, 7)
    held = open_file(path).load()
    assert held == SavedLease(SUBNETS, 7, read_boot_id(), "node-1")
    assert held.is_of_this_boot
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_cluster_and_another_boot_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    open_file(path).save(SUBNETS, 7)
    assert open_file(path, "etcd /other").load() is None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "earlier"}))
    held = open_file(path).load()
    assert held is not None
    assert not held.is_of_this_boot


def test_a_machine_is_the_same_as_long_as_its_folder_is_and_no_copy_is(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    file = open_file(path)
    assert file.machine == file.machine
    file.save(SUBNETS, 7)
    assert open_file(path).machine == file.machine
    assert open_file(tmp_path / "other.json").machine != file.machine
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "another"}))
    assert open_file(path).load() is None
    assert open_file(path).machine != file.machine


def test_a_file_of_a_daemon_that_did_not_say_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    open_file(path).save(SUBNETS, 7)
    body = json.loads(path.read_text())
    path.write_text(json.dumps({k: body[k] for k in body if k not in ("host", "machine", "node")}))
    file = open_file(path)
    assert file.load() == SavedLease(SUBNETS, 7, read_boot_id(), "node-1")
    assert file.machine


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 2}', "[" * 5000, '{"format": 1, "identity": 3}']
)
def test_a_damaged_file_is_as_good_as_none(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "held.json"
    path.write_text(text)
    assert open_file(path).load() is None
    assert "is not used" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_is_logged_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    file = open_file(tmp_path / "file" / "held.json")
    for lease in (1, 2):
        file.save(SUBNETS, lease)
    logged = capfd.readouterr().err
    assert logged.count("cannot be written") == 1
    held = file.load()
    assert held is not None
    assert held.lease == 2


def test_what_could_not_be_written_is_written_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    file = open_file(tmp_path / "data" / "held.json")
    file.save(SUBNETS, 7)
    (tmp_path / "data").unlink()
    file.save(SUBNETS, 7)
    held = open_file(tmp_path / "data" / "held.json").load()
    assert held is not None
    assert held.lease == 7


def test_forgotten(tmp_path: Path) -> None:
    file = open_file(tmp_path / "held.json")
    file.save(SUBNETS, 7)
    file.forget()
    file.forget()
    assert file.load() is None
