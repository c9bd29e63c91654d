"""The connection to each peer in a file beside the status, for `podwirectl peers`.

Thousands of peers take a while to write, so the file is renewed less often than the status.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from daemon.files import open_regular, replace_file
from daemon.probes.report import PeerHealth, Reason, State

GAP, GAP_EACH = 5.0, 0.01
"""Seconds between two writes at least, and for each peer."""
_READ_MAX = 64 << 20  # bytes
_NAMES = [field.name for field in fields(PeerHealth)]
_values = attrgetter(*_NAMES)  # asdict takes ten times as long


def peers_file_of(status: Path) -> Path:
    """Where the file is, by the place of the status."""
    return status.with_name(f"{status.stem}.peers.json")


class PeersFile:
    """The writer."""

    def __init__(self, status: Path) -> None:
        self._path, self._due = peers_file_of(status), 0.0

    def write(self, peers: Callable[[], Iterable[PeerHealth]]) -> None:
        """Write the file if it is due. Raises OSError."""
        now = time.monotonic()
        if now < self._due:
            return
        rows = [_values(peer) for peer in peers()]
        self._due = now + max(GAP, GAP_EACH * len(rows))
        content = json.dumps({"fields": _NAMES, "peers": rows})
        replace_file(self._path, content.encode() + b"\n", 0o600)

    def close(self) -> None:
        """Remove the file: no peer is probed any more."""
        with suppress(OSError):
            self._path.unlink()


def read_peers(status: Path) -> tuple[dict[str, PeerHealth], float]:
    """The connections by the name of the peer, and how many seconds ago they were written.

    Nothing where no daemon probes, or another version does.
    """
    try:
        with open_regular(peers_file_of(status)) as file:
            written = time.time() - os.fstat(file.fileno()).st_mtime
            content = json.loads(file.read(_READ_MAX))
            if content["fields"] != _NAMES:
                return {}, 0.0
            found = map(_parse, content["peers"])
            return {peer.name: peer for peer in found}, max(0.0, written)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}, 0.0


def _parse(raw: Any) -> PeerHealth:
    values = dict(zip(_NAMES, raw, strict=True))
    values["state"], values["reason"] = State(values["state"]), Reason(values["reason"])
    return PeerHealth(**values)
