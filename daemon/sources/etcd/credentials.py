"""Files with secrets: read anew each time, refused where others than root could read them."""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from daemon.config.schema import EtcdSettings
from daemon.sources.remote import SourceError

_PASSWORD_MAX = 4096
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Credentials:
    """How this node shows who it is, and whom it trusts. Files may be replaced at any time."""

    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None
    username: str
    password_file: Path | None

    def check(self) -> None:
        """Raises SourceError where a file is missing, or readable for others."""
        for name, path in (("caFile", self.ca_file), ("certFile", self.cert_file)):
            if path is not None:
                _read(f"source.etcd.{name}", path, secret=False)
        if self.key_file is not None:
            _read("source.etcd.keyFile", self.key_file, secret=True)
        if self.password_file is not None:
            self.read_password()

    def read_password(self) -> str:
        """The password, without the line's end. Raises SourceError."""
        if self.password_file is None:
            return ""
        data = _read("source.etcd.passwordFile", self.password_file, secret=True)
        try:
            text = data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            text = ""
        if not text or len(data) > _PASSWORD_MAX:
            # The text itself is never shown.
            raise SourceError(f"source.etcd.passwordFile {self.password_file} holds no password")
        return text

    def trusted(self) -> str:
        """The file or folder of the authorities that may sign etcd's certificate."""
        if self.ca_file is not None:
            return str(self.ca_file)
        places = ssl.get_default_verify_paths()
        found = places.cafile or places.capath
        if not found:
            raise SourceError("this system has no certificate authorities: set source.etcd.caFile")
        return found


def credentials_of(settings: EtcdSettings) -> Credentials:
    """What the settings name."""
    return Credentials(
        settings.ca_file,
        settings.cert_file,
        settings.key_file,
        settings.username,
        settings.password_file,
    )


def _read(key: str, path: Path, *, secret: bool) -> bytes:
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if secret:
                _check_mode(key, path, status)
            return file.read(1 << 20)
    except OSError as error:
        raise SourceError(f"{key} {path} could not be read: {error.strerror}") from error


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a FIFO in the file's place must not hold up the daemon.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_mode(key: str, path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise SourceError(f"{key} {path} belongs to user {status.st_uid}: must be root's")
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise SourceError(f"{key} {path} has mode {mode:04o}: must be for root alone, like 0600")
