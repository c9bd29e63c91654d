"""`podwired` that also notes when it was where: `python -m tests.bench.routing.probed run ...`.

The daemon is the real one. A few of its functions are wrapped, so that each line of the file that
BENCH_TIMES names tells a moment: its name, and seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "BENCH_TIMES"


def read_times(path: Path) -> list[tuple[str, float]]:
    """The moments of a file, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, float(when)) for name, when in map(str.split, lines)]


class Notes:
    """The file of moments."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, name: str, when: float) -> None:
        """Append a moment."""
        os.write(self._fd, f"{name} {when:.6f}\n".encode())

    def wrap(self, owner: Any, name: str, moment: str, *, only_news: bool = False) -> None:
        """Note the moments before and after each call; or after calls that return something."""
        real: Callable[..., Any] = getattr(owner, name)

        def noted(*args: Any, **words: Any) -> Any:
            began = time.monotonic()
            result = real(*args, **words)
            ended = time.monotonic()
            if not only_news:
                self.note(f"{moment}-begins", began)
            if result is not None or not only_news:
                self.note(f"{moment}-ends", ended)
            return result

        setattr(owner, name, noted)


def run() -> int:
    """Wrap, and be podwired."""
    notes = Notes(os.environ[VARIABLE])
    notes.note("python", time.monotonic())
    from daemon.__main__ import main
    from daemon.routing import peer_routes as entries
    from daemon.routing.planner import Planner
    from daemon.sources import static

    notes.wrap(static, "parse_nodes", "parse")
    notes.wrap(static.StaticSource, "poll", "snapshot", only_news=True)
    notes.wrap(Planner, "plan", "plan")
    notes.wrap(entries, "change_entries", "change")
    return main()


if __name__ == "__main__":
    sys.exit(run())
