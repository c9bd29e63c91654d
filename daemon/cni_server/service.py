"""The socket server from its start to its end, as `podwired serve` and `podwired run` have it."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cni_plugin.errors import CniError
from cni_plugin.host import always_ready
from daemon.cni_server.attachment_locks import KeyedLocks, KeyLocksFile
from daemon.cni_server.call_counters import Meter, Tally
from daemon.cni_server.host import daemon_host
from daemon.cni_server.listener import SHIM_SOCKET, Listener, listen
from daemon.cni_server.processes import Crew, processes_wanted
from daemon.cni_server.server import Server
from daemon.cni_server.worker_pool import Turns
from daemon.log import Log
from daemon.signals import Signals
from daemon.systemd import inherited_socket, notify

STOP_SECONDS = 30.0
LOOK_SECONDS = 0.5
"""Seconds between looks whether calls are stuck, or a process died."""
NOTHING: AbstractContextManager[object] = nullcontext()
_GRACE = 1.0
_COLLECT_AFTER = 10_000  # new objects; a CNI call leaves none behind in cycles


def open_log(level: str) -> Log:
    """The daemon's log, in the form that the reader of stderr wants."""
    return Log(level, journal="JOURNAL_STREAM" in os.environ)


def serve(
    socket_path: Path,
    data_dir: Path,
    log: Log,
    signals: Signals,
    readiness: Callable[[str], CniError | None] = always_ready,
    tally: Tally | None = None,
    beside: AbstractContextManager[object] = NOTHING,
) -> int:
    """Serve CNI calls until `signals.stop`; the exit status. Raises CniError, OSError.

    No thread may run yet. readiness: why a network cannot be served now (see
    `cni_plugin.host.Host`); it is asked in other processes too. tally: where calls are counted,
    with a row for each process (`processes_wanted`). beside: what else runs meanwhile.
    """
    inherited = inherited_socket()
    with Listener(inherited) if inherited else listen(socket_path) as listener:
        _tell_misled(listener, socket_path, log)
        counts = tally or Tally(processes_wanted())
        post, crew = Post(data_dir, log, readiness, KeyLocksFile(), counts), Crew(log)
        # What is there now stays: the collector need not look at it after every few calls, and
        # the pages that it would touch are shared.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        crew.fork(processes_wanted() - 1, partial(_help, listener, post, signals))
        try:
            return _lead(listener, post, signals, crew, beside)
        finally:
            crew.signal(signal.SIGTERM)
            crew.wait(_GRACE)


@dataclass(frozen=True, slots=True)
class Post:
    """What every process that serves calls has."""

    data_dir: Path
    log: Log
    readiness: Callable[[str], CniError | None]
    keys: KeyLocksFile
    tally: Tally


def _lead(
    listener: Listener,
    post: Post,
    signals: Signals,
    crew: Crew,
    beside: AbstractContextManager[object],
) -> int:
    """Serve in the first process, and end with the others."""
    signals.follow()
    with _serving(listener, post, 0) as server, beside:
        notify("READY=1")
        post.log.info("serving", socket=listener, data_dir=post.data_dir)
        while not signals.stop.wait(LOOK_SECONDS):
            server.relieve()
            for number in crew.look():
                post.tally.bury(number)
        notify("STOPPING=1")
        crew.signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        done = server.stop(STOP_SECONDS)
        failed = crew.wait(max(_GRACE, until - time.monotonic()))
    finished = done and not failed
    words = "stopped" if finished else "stopped with calls under way"
    post.log.info(f"{words}; a process had died before" if crew.died else words)
    return 0 if finished else 1


def _help(first: Listener, post: Post, signals: Signals, number: int) -> int:
    """Serve in a further process until told to stop; the exit status."""
    signals.follow(switches=False)
    with first.share() as listener, _serving(listener, post, number) as server:
        while not signals.stop.wait(LOOK_SECONDS):
            server.relieve()
        return 0 if server.stop(STOP_SECONDS) else 1


@contextmanager
def _serving(listener: Listener, post: Post, number: int) -> Iterator[Server]:
    turns, meter = Turns(post.log), Meter(post.tally, number)
    locks = KeyedLocks(post.keys.open(), turns.shifts.leave)
    with daemon_host(post.data_dir, turns, post.readiness) as host:
        yield Server(listener, host, turns, locks, meter, post.log)


def _tell_misled(listener: Listener, socket_path: Path, log: Log) -> None:
    """Say what comes of a socket that is moved: the executable knows nothing of podwired.yaml."""
    place = str(listener)
    if place != str(socket_path):
        log.warning(f"socket {socket_path} is ignored: systemd's unit has its own", socket=place)
    if place != str(SHIM_SOCKET):
        why = "unless the container runtime's environment has PODWIRE_SOCKET"
        log.warning(f"CNI calls look for {SHIM_SOCKET}, and go the slow way {why}={place}")
