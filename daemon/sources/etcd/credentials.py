"""The files of `source.etcd` that authenticate this node and etcd.

They may be replaced at any time, so each use reads them. A secret that others than root could read
is refused.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

from daemon.config.schema import EtcdSettings
from daemon.files import open_regular
from daemon.sources.remote import SourceError

_PASSWORD_MAX = 4096
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_files(settings: EtcdSettings) -> None:
    """Raises SourceError where a file is missing, or others can read a secret."""
    for name, path in (("caFile", settings.ca_file), ("certFile", settings.cert_file)):
        if path is not None:
            _read(f"source.etcd.{name}", path, secret=False)
    if settings.key_file is not None:
        _read("source.etcd.keyFile", settings.key_file, secret=True)
    read_password(settings)


def read_password(settings: EtcdSettings) -> str:
    """The password, without the line's end; "" where none is set. Raises SourceError."""
    path = settings.password_file
    if path is None:
        return ""
    data = _read("source.etcd.passwordFile", path, secret=True)
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > _PASSWORD_MAX:
        # The text itself is never shown.
        raise SourceError(f"source.etcd.passwordFile {path} holds no password")
    return text


def make_context(settings: EtcdSettings) -> ssl.SSLContext:
    """The authorities that may sign etcd's certificate, and this node's certificate.

    Raises SourceError.
    """
    ca, certificate = settings.ca_file, settings.cert_file
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if certificate is not None:
            context.load_cert_chain(certificate, settings.key_file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise SourceError(f"source.etcd: its certificates cannot be used: {error}") from error
    return context


def _read(key: str, path: Path, *, secret: bool) -> bytes:
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if secret:
                _check_mode(key, path, status)
            return file.read(1 << 20)
    except OSError as error:
        raise SourceError(f"{key} {path} could not be read: {error.strerror}") from error


def _check_mode(key: str, path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise SourceError(f"{key} {path} belongs to user {status.st_uid}: must be root's")
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise SourceError(f"{key} {path} has mode {mode:04o}: must be for root alone, like 0600")
