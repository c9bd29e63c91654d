"""Writes the parts into one archive, readable by root alone, without secrets."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from ctl.bundle.parts import PART_MAX, Part
from ctl.bundle.redact import redact

TOTAL_MAX = 96 << 20
"""Bytes of all parts together, before they are compressed."""


def write_archive(
    file: IO[bytes], folder: str, parts: Iterable[Part], report: Callable[[str], None]
) -> list[str]:
    """Write a .tar.gz; what is not in it, with the reasons. Raises OSError.

    folder: the top one in the archive. report: takes the name of each part before it is collected.
    """
    missing: list[str] = []
    total = 0
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
        for name, collect in parts:
            report(name)
            try:
                content = _clean(collect())
            except OSError as error:
                missing.append(f"{name}: {error}")
                continue
            if total + len(content) > TOTAL_MAX:
                missing.append(f"{name}: the bundle would be larger than {TOTAL_MAX >> 20} MiB")
                continue
            total += len(content)
            _add(archive, f"{folder}/{name}", content)
        _add(archive, f"{folder}/missing.txt", "".join(f"{each}\n" for each in missing).encode())
    return missing


def _clean(content: bytes) -> bytes:
    text = content[:PART_MAX].decode(errors="replace")
    return redact(text).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def create(path: Path) -> IO[bytes]:
    """A new file that root alone can read. Raises OSError, also where there is one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o600), "wb")
