"""`allowOverlap` as podwired.yaml has it now: the one key that is taken while the daemon runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from daemon.config.load import load_settings
from daemon.config.schema import Settings
from daemon.config.yaml import FileFault
from daemon.files import state_of
from daemon.log import Log
from kernel.model import IPNetwork


class AllowedOverlap:
    """Reads the file once, and again whenever it has changed. settings: those of the start."""

    def __init__(self, file: Path, settings: Settings, log: Log) -> None:
        self._file, self._settings, self._log = file, settings, log
        self._seen: object = None
        self._taken: object = None

    def poll(self) -> tuple[IPNetwork, ...] | None:
        """The prefixes where they have changed; to be called at intervals.

        A file that changes between two calls is still being written, and is left for the next one.
        """
        before, self._seen = self._seen, _state_of(self._file)
        if self._seen in (None, self._taken) or self._seen != before:
            return None
        self._taken = self._seen
        try:
            fresh = load_settings(self._file)
        except FileFault as fault:
            self._log.warning(f"{fault}: the settings of before stay in use")
            return None
        return self._take(fresh)

    def _take(self, fresh: Settings) -> tuple[IPNetwork, ...] | None:
        allowed, before = fresh.allow_overlap, self._settings.allow_overlap
        self._settings = self._settings.model_copy(update={"allow_overlap": allowed})
        if fresh != self._settings:
            text = "has changed: restart the daemon, which takes only `allowOverlap` at once"
            self._log.warning(f"{self._file} {text}")
        if allowed == before:
            return None
        self._log.info("allowOverlap has changed", prefixes=" ".join(map(str, allowed)))
        return allowed


def _state_of(file: Path) -> object:
    try:
        found = os.stat(file)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):  # a FIFO would block the routing loop
        return None
    return state_of(found)
