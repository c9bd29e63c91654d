"""Files of secrets: refused where others can read them, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.schema import EtcdSettings
from daemon.sources.etcd.credentials import check_files, read_password
from daemon.sources.remote import SourceError


def settings(**files: Path) -> EtcdSettings:
    return EtcdSettings.model_construct(None, **files)


def test_a_password_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(" pass word \r\n")
    assert read_password(settings(password_file=path)) == " pass word "


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_password_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        check_files(settings(password_file=path))
    assert str(caught.value) == f"source.etcd.passwordFile {path} holds no password"


@pytest.mark.parametrize("name", ["key_file", "password_file"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_secrets_are_for_root_alone(tmp_path: Path, name: str, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("secret")
    path.chmod(mode)
    with pytest.raises(SourceError, match=f"has mode {mode:04o}: must be for root alone"):
        check_files(settings(**{name: path}))
    path.chmod(0o400)
    check_files(settings(**{name: path}))


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    for name, key in (("ca_file", "caFile"), ("cert_file", "certFile"), ("key_file", "keyFile")):
        with pytest.raises(SourceError, match=f"source.etcd.{key} .*/none could not be read"):
            check_files(settings(**{name: tmp_path / "none"}))
