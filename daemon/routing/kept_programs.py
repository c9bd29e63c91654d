"""podwire's executables stay where they were installed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from daemon.files import explain, state_of
from daemon.installer.manifest import NAME, ManifestFault, changing_manifest, load_manifest
from daemon.installer.programs import restore_programs
from daemon.routing.reporter import Reporter

AGAIN = 5.0
"""Seconds after which executables that are not in place are tried again."""


class KeptPrograms:
    """Compares them with the manifest whenever it is told to, and reports what it did.

    folder: the data directory. It is the routing loop's, and the leading process's without one.
    """

    def __init__(
        self, folder: Path, reporter: Reporter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._reporter, self._clock = folder, reporter, clock
        self._paths: tuple[Path, ...] = ()
        self._seen: object = None
        self._next = math.inf

    def check(self) -> None:
        """Put back executables that are missing or were replaced, until all are in place."""
        seen, now = self._read_marks(), self._clock()
        if seen == self._seen and now < self._next:
            return
        fault = ""
        try:
            self._paths = tuple(load_manifest(self._folder).files)
            if self._paths:
                fault = explain_missing(self._restore())
        except ManifestFault as error:
            fault = str(error)
        except OSError as error:
            fault = explain("the record of files", self._folder / NAME, error, "dataDir")
        # Of before: what changes meanwhile is seen the next time, as podwire's own changes are.
        self._seen, self._next = seen, now + AGAIN if fault else math.inf
        self._reporter.report_fault("programs", fault)

    def _read_marks(self) -> object:
        """What differs when the manifest or an executable changed."""
        return tuple(map(_mark, (self._folder / NAME, *self._paths)))

    def _restore(self) -> dict[Path, str]:
        """Why which ones are not in place. Raises ManifestFault, OSError."""
        with changing_manifest(self._folder, wait=0) as manifest:
            lines, missing = restore_programs(manifest)
        for line in lines:
            self._reporter.report_repair(line, f"file {line}", "removed or replaced by others")
        return missing


def explain_missing(missing: Mapping[Path, str]) -> str:
    """The fault of executables that are not in place, by why; empty where there are none."""
    if not missing:
        return ""
    path, why = next(iter(missing.items()))
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return f"podwire's executable {path}{more} is not in place: {why}"


def _mark(path: Path) -> object:
    try:
        return state_of(os.lstat(path))
    except OSError as error:
        return error.errno
