"""Kernel settings below /proc/sys of the calling thread's network namespace."""

from __future__ import annotations

import os

from kernel.errors import KernelError
from kernel.model import Sysctl

_LONGEST = 4096  # bytes; the settings that podwire knows are numbers


def read_sysctl(path: str) -> str | None:
    """The value without its newline; None where the kernel has no such setting."""
    try:
        fd = os.open(f"/proc/sys/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _LONGEST).decode(errors="replace").strip()
    except OSError:
        return None
    finally:
        os.close(fd)


def apply_sysctl(setting: Sysctl, *, fresh: bool = False) -> None:
    """Write a setting unless it has the value already (/proc/sys may be read-only then).

    fresh: of a link that was just made, and so has the default, which nobody asks for.
    """
    if not fresh and read_sysctl(setting.path) == setting.value:
        return
    try:
        fd = os.open(f"/proc/sys/{setting.path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, setting.value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if setting.required and read_sysctl(setting.path) != setting.value:
            raise KernelError(f"set to {setting.value}", setting.path, error.errno or 0) from error
