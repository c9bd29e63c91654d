"""What container runtimes find: podwire's executables stay where they were installed, and its CNI
configuration is the one that they take.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from daemon.config.schema import ConflistSettings, Settings
from daemon.files import explain, state_of
from daemon.installer.conflists import other_conflists, set_aside_conflists
from daemon.installer.manifest import (
    NAME,
    ManifestFault,
    aside,
    changing_manifest,
    load_manifest,
)
from daemon.installer.programs import restore_programs
from daemon.routing.conflist import network_of, remove_conflist
from daemon.routing.reporter import Reporter

AGAIN = 5.0
"""Seconds after which executables that are not in place are tried again."""


class Takeover:
    """Compares both whenever it is told to, and reports what it did and what is in the way."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._conflist = settings.data_dir, settings.conflist
        self._reporter = reporter
        self._clock = clock
        self._paths: tuple[Path, ...] = ()
        self._seen: object = None
        self._next = math.inf

    def check_programs(self) -> None:
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

    def check_conflists(self) -> None:
        """Set aside what a runtime would take before podwire's, or report it."""
        conflist = self._conflist
        if conflist is None:
            return
        try:
            names = os.listdir(conflist.path.parent)
        except OSError:
            return  # why the own one cannot be written is reported
        others = other_conflists(names, conflist.path.name, conflist.leave)
        others = self._remove_former(conflist, others)
        fault = ""
        if others and conflist.exclusive:
            fault = self._set_aside(conflist, others)
        elif others and others[0] < conflist.path.name:
            fault = explain_first(conflist, others[0])
        self._reporter.report_fault("takeover", fault)

    def _remove_former(self, conflist: ConflistSettings, names: Iterable[str]) -> list[str]:
        """Remove what the daemon wrote while `conflist.path` was another; the other names."""
        others = []
        for name in names:
            path = conflist.path.with_name(name)
            removed = False
            with suppress(OSError):
                removed = network_of(path) == conflist.name and remove_conflist(path)
            if removed:
                cause = f"it was podwire's; conflist.path is {conflist.path.name} now"
                self._reporter.report_change("removed", f"file {path}", cause)
            else:
                others.append(name)
        return others

    def _set_aside(self, conflist: ConflistSettings, names: Sequence[str]) -> str:
        """Do it; why it cannot be done."""
        folder = conflist.path.parent
        paths = [folder / name for name in names]
        try:
            with changing_manifest(self._folder, wait=0) as manifest:
                set_aside_conflists(manifest, paths)
        except ManifestFault as error:
            return str(error)
        except OSError as error:
            return explain("another CNI configuration", paths[0], error, "conflist.path")
        for path in paths:
            cause = f"conflist.exclusive; it is {aside(path).name} now"
            self._reporter.report_change("removed", f"file {path}", cause)
        return ""


def explain_missing(missing: Mapping[Path, str]) -> str:
    """The fault of executables that are not in place, by why; empty where there are none."""
    if not missing:
        return ""
    path, why = next(iter(missing.items()))
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return f"podwire's executable {path}{more} is not in place: {why}"


def explain_first(conflist: ConflistSettings, name: str) -> str:
    """The fault of a configuration that comes before podwire's."""
    where = conflist.path.parent
    return (
        f"runtimes take {name} in {where} before {conflist.path.name}: new pods are not podwire's; "
        "move it away, or set conflist.exclusive in podwired.yaml"
    )


def _mark(path: Path) -> object:
    try:
        return state_of(os.lstat(path))
    except OSError as error:
        return error.errno
