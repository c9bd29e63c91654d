"""Policies without Kubernetes: NetworkPolicy, Namespace and Pod objects in the files of a folder.

A pod of this node that no file describes is known by its name: see `daemon.policy.local_pods`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from daemon.files import FileState, Settling, read_regular, state_of
from daemon.model import SourceActivity
from daemon.policy.model import Facts
from daemon.policy.objects import facts_of

FILE_MAX = 16 << 20  # bytes
_SUFFIXES = (".yaml", ".yml", ".json")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FileSource:
    """A PolicySource of the files in a folder; while one of them is damaged, all stay as read.

    They are read when none has changed for SETTLE_SECONDS. now, today: see `Settling`.
    """

    names_pods = True
    activity = SourceActivity()

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self.fault = ""
        self._folder = folder
        self._settling = Settling(now, today)

    def start(self) -> None:
        """Nothing is open between reads."""

    def fileno(self) -> int:
        """Files are looked at when the controller does so."""
        return -1

    def take(self) -> Facts | None:
        """The facts in all files, None where no file changed."""
        try:
            states = self._states()
            changed = [self._folder.stat().st_ctime_ns, *(state[0] for state in states.values())]
            if not self._settling.has_settled(states, max(changed)):
                return None
            self._settling.take(states)
            facts = facts_of(thing for path in self._files() for thing in read_objects(path))
            if self._states() != states:
                self._settling.forget()
                return None
        except OSError as error:
            self._settling.forget()
            why = f"{error.filename or self._folder} cannot be read: {error.strerror}"
            self.fault = f"{why}: make it readable, or remove it"
            return None
        except ValueError as error:
            self.fault = f"{error}: correct that file"
            return None
        self.fault = ""
        return facts

    def _states(self) -> dict[str, FileState]:
        return {path.name: state_of(path.stat()) for path in self._files()}

    def _files(self) -> list[Path]:
        """Hidden ones are those of editors."""
        found = (path for path in self._folder.iterdir() if path.suffix in _SUFFIXES)
        return sorted(path for path in found if not path.name.startswith("."))

    def close(self) -> None:
        """Nothing is open."""


def _parse(path: Path, data: bytes) -> list[Any]:
    """Documents; JSON by its own parser, which takes a fraction of the time."""
    if path.suffix == ".json":
        return [json.loads(data)]
    return [d for d in yaml.load_all(data, _LOADER) if d is not None]


def read_objects(path: Path) -> list[Any]:
    """The objects in a file of YAML or JSON documents. Raises OSError, ValueError naming it."""
    data = read_regular(path, FILE_MAX)
    try:
        documents = _parse(path, data)
        facts_of(documents)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return documents
