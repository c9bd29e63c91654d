"""What a node held, on disk: of this boot and cluster, or not at all; and files of secrets."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from daemon.log import Log
from daemon.sources.etcd.credentials import Credentials
from daemon.sources.etcd.memory import Held, Memory
from daemon.sources.remote import SourceError
from ipam.boot import read_boot_id

SUBNETS = (ip_network("10.244.3.0/24"), ip_network("fd00:10:244:3::/64"))


def open_memory(path: Path, identity: str = "etcd /podwire") -> Memory:
    return Memory(path, identity, "node-1", Log())


def test_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data" / "held.json"
    assert open_memory(path).load() is None
    open_memory(path).save(SUBNETS, 7)
    held = open_memory(path).load()
    assert held == Held(SUBNETS, 7, read_boot_id(), "node-1")
    assert held.is_of_this_boot
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_cluster_and_another_boot_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    open_memory(path).save(SUBNETS, 7)
    assert open_memory(path, "etcd /other").load() is None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "earlier"}))
    held = open_memory(path).load()
    assert held is not None
    assert not held.is_of_this_boot


def test_a_machine_is_the_same_as_long_as_its_folder_is_and_no_copy_is(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    memory = open_memory(path)
    assert memory.machine == memory.machine
    memory.save(SUBNETS, 7)
    assert open_memory(path).machine == memory.machine
    assert open_memory(tmp_path / "other.json").machine != memory.machine
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "another"}))
    assert open_memory(path).load() is None
    assert open_memory(path).machine != memory.machine


def test_a_file_of_a_daemon_that_did_not_say_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    open_memory(path).save(SUBNETS, 7)
    body = json.loads(path.read_text())
    path.write_text(json.dumps({k: body[k] for k in body if k not in ("host", "machine", "node")}))
    memory = open_memory(path)
    assert memory.load() == Held(SUBNETS, 7, read_boot_id(), "node-1")
    assert memory.machine


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 2}', "[" * 5000, '{"format": 1, "identity": 3}']
)
def test_a_damaged_file_is_as_good_as_none(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "held.json"
    path.write_text(text)
    assert open_memory(path).load() is None
    assert "is not used" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    memory = open_memory(tmp_path / "file" / "held.json")
    for lease in (1, 2):
        memory.save(SUBNETS, lease)
    said = capfd.readouterr().err
    assert said.count("cannot be written") == 1
    held = memory.load()
    assert held is not None
    assert held.lease == 2


def test_forgotten(tmp_path: Path) -> None:
    memory = open_memory(tmp_path / "held.json")
    memory.save(SUBNETS, 7)
    memory.forget()
    memory.forget()
    assert memory.load() is None


def credentials(**files: Path) -> Credentials:
    names = ("ca_file", "cert_file", "key_file", "password_file")
    given = {name: files.get(name) for name in names}
    return Credentials(username="podwire" if given["password_file"] else "", **given)


def test_a_password_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(" pass word \r\n")
    assert credentials(password_file=path).read_password() == " pass word "


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_password_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        credentials(password_file=path).check()
    assert str(caught.value) == f"source.etcd.passwordFile {path} holds no password"


@pytest.mark.parametrize("name", ["key_file", "password_file"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_secrets_are_for_root_alone(tmp_path: Path, name: str, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("secret")
    path.chmod(mode)
    with pytest.raises(SourceError, match=f"has mode {mode:04o}: must be for root alone"):
        credentials(**{name: path}).check()
    path.chmod(0o400)
    credentials(**{name: path}).check()


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    for name, key in (("ca_file", "caFile"), ("cert_file", "certFile"), ("key_file", "keyFile")):
        with pytest.raises(SourceError, match=f"source.etcd.{key} .*/none could not be read"):
            credentials(**{name: tmp_path / "none"}).check()
