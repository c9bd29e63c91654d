"""Kernel settings below /proc/sys of the calling thread's network namespace."""

from __future__ import annotations

import os

from kernel.errors import KernelError
from kernel.model import Sysctl


def read_sysctl(path: str) -> str | None:
    """The value without its newline; None where the kernel has no such setting."""
    try:
        with open(f"/proc/sys/{path}") as file:
            return file.read().strip()
    except OSError:
        return None


def apply_sysctl(setting: Sysctl) -> None:
    """Write a setting unless it has the value already (/proc/sys may be read-only then)."""
    if read_sysctl(setting.path) == setting.value:
        return
    try:
        fd = os.open(f"/proc/sys/{setting.path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, setting.value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if setting.required:
            raise KernelError(f"set to {setting.value}", setting.path, error.errno or 0) from error
