"""Programs of the node that podwire runs where the kernel has no better interface."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from kernel.errors import KernelError, MissingTool

_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")
_TIMEOUT = 60  # seconds
_LINES_MAX = 3


def find_program(name: str) -> str | None:
    """The path of a program; the caller's PATH is not consulted."""
    paths = (f"{folder}/{name}" for folder in _FOLDERS)
    return next((p for p in paths if os.path.isfile(p) and os.access(p, os.X_OK)), None)


def require_program(name: str, hint: str) -> str:
    """The same. Raises MissingTool, with the hint, where it is not installed."""
    program = find_program(name)
    if program is None:
        raise MissingTool("run", name, 0, hint)
    return program


def run_program(
    argv: Sequence[str],
    what: tuple[str, str],
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> str:
    """What a program writes to its standard output.

    what: operation and target, as `KernelError` names them. env: its whole environment; the
    caller's stays out, for it may hold the runtime's secrets. Raises KernelError where the program
    fails or does not end within a minute.
    """
    import subprocess

    try:
        done = subprocess.run(
            argv,
            input=stdin.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=_TIMEOUT,
            env=env or {},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KernelError(*what, 0, f"{argv[0]} does not end") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise KernelError(*what, 0, "; ".join(lines[:_LINES_MAX]))
    return done.stdout.decode(errors="surrogateescape")
