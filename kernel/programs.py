"""Programs of the node that podwire starts."""

from __future__ import annotations

import os

_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")


def find_program(name: str) -> str | None:
    """The path of a program; the caller's PATH is not consulted."""
    paths = (f"{folder}/{name}" for folder in _FOLDERS)
    return next((p for p in paths if os.path.isfile(p) and os.access(p, os.X_OK)), None)
