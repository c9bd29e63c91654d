"""podwire's CNI configuration is the one that container runtimes take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from daemon.config.schema import ConflistSettings, Settings
from daemon.files import explain
from daemon.installer.conflists import other_conflists, set_aside_conflists
from daemon.installer.manifest import ManifestFault, aside, changing_manifest
from daemon.routing.conflist import network_of, remove_conflist
from daemon.routing.reporter import Reporter


class Takeover:
    """Compares them whenever it is told to, and reports what it did and what is in the way."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._folder, self._conflist = settings.data_dir, settings.conflist
        self._reporter = reporter

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


def explain_first(conflist: ConflistSettings, name: str) -> str:
    """The fault of a configuration that comes before podwire's."""
    where = conflist.path.parent
    return (
        f"runtimes take {name} in {where} before {conflist.path.name}: new pods are not podwire's; "
        "move it away, or set conflist.exclusive in podwired.yaml"
    )
