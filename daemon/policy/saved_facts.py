"""What the daemon knows of policies, in a file for the next daemon and for `podwirectl`."""

from __future__ import annotations

import json
from pathlib import Path

from daemon.config import POLICIES
from daemon.delayed_file import DelayedFile
from daemon.files import read_regular
from daemon.policy.model import Facts
from daemon.policy.objects import facts_of, render_facts

FILE_MAX = 64 << 20  # bytes
SAVE_SECONDS = 1.0
"""Seconds from a change to its write, at least."""


def saved_path(data_dir: Path) -> Path:
    """Where the file is."""
    return data_dir / POLICIES


def read_facts(path: Path) -> Facts:
    """The facts of such a file. Raises OSError, ValueError."""
    try:
        return facts_of([json.loads(read_regular(path, FILE_MAX))])
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def open_saved(path: Path) -> DelayedFile[Facts]:
    """The file, to be written some time after a change, and at the end."""
    return DelayedFile(path, "the policies", render_facts, soon=SAVE_SECONDS)
