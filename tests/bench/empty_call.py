"""An empty call through the shim: podwire's daemon beside the smallest Python server.

Its verb is none, so the daemon refuses it at once; VERSION is answered by the shim itself.

What the daemon adds to that server is what every call pays for pool, counters, locks and log. It
is measured one call after the other, and with pauses, as calls come on a node: by then other
programs have used the caches.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests import ROOT
from tests.bench import spawn
from tests.bench.contender import CallFailed
from tests.bench.lineup import SOCKET, Entry, Lineup
from tests.bench.networks import BRIDGE_PLAIN
from tests.bench.results import FLOOR, PODWIRE, Figure, Results
from tests.bench.rounds import in_turns
from tests.bench.world import Host

PAUSE = 0.03
"""Seconds between calls."""
BACK_TO_BACK, SPACED = "no verb", "no verb after 30 ms"
CASE = "empty call"
_FLOOR_SOCKET = "/run/bench-floor.sock"
_BLOCK = 10
"""Calls of one server in a row."""


def empty_calls(lineup: Lineup, results: Results, section: str, blocks: int) -> None:
    """Both servers in blocks, in turns. The first block only warms up."""
    if lineup.programs.daemon is None or not lineup.programs.shim:
        return
    with lineup.contenders(BRIDGE_PLAIN, Entry(PODWIRE)) as (podwire,), _floor(podwire.host):
        sockets = {FLOOR: _FLOOR_SOCKET, PODWIRE: SOCKET}
        for what, pause in ((BACK_TO_BACK, 0.0), (SPACED, PAUSE)):
            for number in range(blocks + 1):
                for label, socket in in_turns([*sockets.items()], number):
                    call = partial(_call, lineup, podwire.host, socket, pause)
                    walls = [call() * 1e3 for _ in range(_BLOCK)]
                    if number:
                        results.add(Figure(section, CASE, what), label, *walls)


def _call(lineup: Lineup, host: Host, socket: str, pause: float) -> float:
    env = {"CNI_COMMAND": "NONE", "PODWIRE_SOCKET": socket}
    command = spawn.Command(lineup.programs.podwire, env, b'{"cniVersion": "1.1.0"}')
    time.sleep(pause)
    ended = host.call(lambda: spawn.run(command, host.stderr))
    if b"NONE" not in ended.stdout:
        raise CallFailed(f"a call at {socket} ended with {ended.code}: {ended.stdout!r}")
    return ended.wall


@contextmanager
def _floor(host: Host) -> Iterator[None]:
    argv = [sys.executable, "-m", "tests.bench.floor_server", _FLOOR_SOCKET]
    # A session of its own: wait4 counts only calls.
    start = partial(
        subprocess.Popen[bytes], argv, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    with host.call(start) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline(), "the smallest server does not listen"
            yield
        finally:
            server.kill()
