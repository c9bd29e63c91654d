"""`podwired run` and `podwired serve`: the daemon put together from its parts.

`serve` answers this node's CNI calls; `run` keeps the routes to all other nodes as well.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.errors import INVALID_ENVIRONMENT, CniError
from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_INDEX, DEFAULT_SOCKET, always_ready
from cni_plugin.reclaim import reclaim_in_all_stores
from daemon.cni_server.attachment_locks import AttachmentLocks, IdleAttachments, LocksFile
from daemon.cni_server.call_counters import CallCounters
from daemon.cni_server.host import daemon_host
from daemon.cni_server.listener import Listener, listen
from daemon.cni_server.processes import Processes, process_count
from daemon.cni_server.server import Server
from daemon.cni_server.worker_pool import Delegations, WorkerPool
from daemon.config import DEFAULT_CONFIG
from daemon.log import Log
from daemon.options import Unusable, path_from_environment, settings_of
from daemon.signals import Signals
from daemon.systemd import notify
from daemon.watchdog import Watchdog, WatchedLoop
from ipam.errors import IpamError

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.status import NodeStatus, StatusFile

STOP_SECONDS = 30.0
CHECK_SECONDS = 0.5
"""Seconds between checks whether calls are stuck, or a process died."""
_GRACE_SECONDS = 1.0
_COLLECT_AFTER = 10_000  # new objects; a CNI call leaves none behind in cycles


def run(config: Path | None, log_level: str) -> int:
    """Serve calls and keep routes until a signal; the exit status."""
    return _started(log_level, partial(_run, config))


def serve(socket_path: Path, data_dir: Path, log_level: str) -> int:
    """Serve calls alone until a signal; the exit status."""
    return _started(log_level, partial(_serve, socket_path, data_dir))


def _started(log_level: str, work: Callable[[Log, Signals], int]) -> int:
    log = Log(log_level, journal="JOURNAL_STREAM" in os.environ)
    try:
        return work(log, Signals(log))
    except _Displaced as found:
        log.error(f"{found}: podwired restarts")
        _restart()
    except (Unusable, CniError, IpamError, OSError) as error:
        log.error(str(error))
    return 1


class _Displaced(Exception):
    """A file by which others find the daemon, or keep away from it, is gone."""


def _restart() -> None:
    """Execute the program anew, in this process: no forked process can be given a new socket."""
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _serve(socket_path: Path, data_dir: Path, log: Log, signals: Signals) -> int:
    _check_folder(data_dir)
    return _serve_calls(socket_path, _alone(data_dir, log), signals)


def _check_folder(path: Path) -> None:
    """Refuse what can be no data directory: every call would fail. Raises CniError."""
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not place.is_dir():
        msg = f"the data directory {path} cannot be: {place} is no directory"
        raise CniError(INVALID_ENVIRONMENT, msg, "--data-dir or PODWIRE_DATA_DIR names it")


def _run(config: Path | None, log: Log, signals: Signals) -> int:
    settings = settings_of(config)
    if settings is not None:
        return _route(settings, config or DEFAULT_CONFIG, log, signals)
    log.warning(f"no {DEFAULT_CONFIG}: routes to other nodes are not podwire's")
    socket_path = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
    data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    return _serve_calls(socket_path, _alone(data_dir, log), signals)


def _open_status(settings: Settings) -> StatusFile:
    from daemon.files import explain
    from daemon.status import AnotherDaemon, StatusFile

    try:
        return StatusFile(settings.status_file)
    except AnotherDaemon as error:
        raise Unusable(str(error)) from error
    except OSError as error:
        raise Unusable(explain("the status", settings.status_file, error, "statusFile")) from error


def _route(settings: Settings, config: Path, log: Log, signals: Signals) -> int:
    from daemon.cni_server.readiness import Readiness
    from daemon.journal import Journal
    from daemon.metrics import metrics_served
    from daemon.metrics.collector import Sources
    from daemon.outages import FailedCalls
    from daemon.routing.loop import Routing

    counters, watchdog = CallCounters(process_count()), Watchdog(log)
    status = _open_status(settings)

    def keep(found: NodeStatus) -> None:
        faults = {**found.faults, "calls": counters.fault} if counters.fault else found.faults
        status.write(replace(found, faults=faults))
        if failed_calls.is_due(now := time.monotonic()):
            failed_calls.note(counters.read()["ADD"].codes, now)

    readiness = Readiness(settings.conflist.name if settings.conflist else "", keep)
    journal = Journal(settings.journal.path, settings.journal.max_bytes)
    failed_calls = FailedCalls(journal)
    common = Common(
        settings.data_dir, log, watchdog, counters, readiness.fault, lambda: status.is_in_place
    )
    idle = IdleAttachments(common.locks).holding

    routing = Routing(settings, journal, log, readiness.publish, idle, watchdog.add, config)
    sources = Sources(settings, counters, routing.counts, journal, routing.prober)

    @contextmanager
    def beside() -> Iterator[None]:
        with routing, metrics_served(sources, log, watchdog.add):
            yield

    with closing(status), closing(journal):
        return _serve_calls(settings.socket, common, signals, beside())


class Common:
    """What all processes that serve calls have in common, made before they are forked.

    counters: with a row for each process. readiness: why a network cannot be served now (see
    `cni_plugin.host.Host`). is_in_place: whether the daemon's other files are where they were.
    """

    def __init__(
        self,
        data_dir: Path,
        log: Log,
        watchdog: Watchdog,
        counters: CallCounters,
        readiness: Callable[[str], CniError | None] = always_ready,
        is_in_place: Callable[[], bool] = lambda: True,
    ) -> None:
        self.data_dir, self.log, self.readiness = data_dir, log, readiness
        self.is_in_place = is_in_place
        self.watchdog, self.counters = watchdog, counters
        names = (f"calls of process {n + 1}" for n in range(len(counters.rows)))
        self.loops = [watchdog.add(name) for name in names]
        self.locks = LocksFile()


def _alone(data_dir: Path, log: Log) -> Common:
    """For a daemon that serves calls, and keeps no routes."""
    return Common(data_dir, log, Watchdog(log), CallCounters(process_count()))


_NOTHING: AbstractContextManager[object] = nullcontext()


def _serve_calls(
    socket_path: Path,
    common: Common,
    signals: Signals,
    beside: AbstractContextManager[object] = _NOTHING,
) -> int:
    """Serve CNI calls until `signals.stop`; the exit status. Raises CniError, OSError, _Displaced.

    No thread may run yet. beside: what else runs in the first process meanwhile.
    """
    if socket_path != DEFAULT_SOCKET:
        why = "unless the container runtime's environment has PODWIRE_SOCKET"
        text = f"CNI calls look for {DEFAULT_SOCKET}, and go the slow way {why}={socket_path}"
        common.log.warning(text)
    with listen(socket_path) as listener:
        # What there is now stays: the collector need not visit it after every few calls, and the
        # pages that it would touch are shared.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        processes = Processes(common.log)
        processes.fork(process_count() - 1, partial(_serve_beside, listener, common))
        try:
            return _lead(listener, common, signals, processes, beside)
        finally:
            listener.shut_down()
            processes.wait(_GRACE_SECONDS)


def _lead(
    listener: Listener,
    common: Common,
    signals: Signals,
    processes: Processes,
    beside: AbstractContextManager[object],
) -> int:
    """Serve in the first process until a signal, and wait for the others."""
    signals.follow()
    reclaim_in_all_stores(common.data_dir, DEFAULT_INDEX, common.log.info)
    with _serving(listener, common, 0) as (server, pool), beside:
        notify("READY=1")
        common.log.info("serving", socket=listener, data_dir=common.data_dir)
        displaced = ""
        while not displaced and not signals.stop.wait(CHECK_SECONDS):
            _check(pool, common.loops[0])
            for number in processes.find_dead():
                common.counters.drop(number)
                common.loops[number].end()
            common.watchdog.check()
            displaced = _find_displaced(listener, common)
        if not displaced:
            notify("STOPPING=1")
        until = time.monotonic() + STOP_SECONDS
        listener.shut_down()
        done = server.finish(STOP_SECONDS)
        done = processes.wait(max(_GRACE_SECONDS, until - time.monotonic())) and done
    if displaced and not signals.stop.is_set():
        raise _Displaced(displaced)
    text = "stopped" if done else "stopped with calls in flight"
    common.log.info(f"{text}; a process had died before" if processes.died else text)
    return 0 if done else 1


def _find_displaced(listener: Listener, common: Common) -> str:
    if not listener.is_in_place:
        return f"the socket {listener} was removed"
    return "" if common.is_in_place() else "the lock of the status was removed"


def _check(pool: WorkerPool, loop: WatchedLoop) -> None:
    """Relieve a thread that is stuck, and note whether calls are taken."""
    if pool.relieve():
        loop.beat()


def _serve_beside(listener: Listener, common: Common, number: int) -> int:
    """Serve in a further process until the socket is shut down; the exit status."""
    with _serving(listener, common, number) as (server, pool):
        while not pool.closed.wait(CHECK_SECONDS):
            _check(pool, common.loops[number])
        return 0 if server.finish(STOP_SECONDS) else 1


@contextmanager
def _serving(
    listener: Listener, common: Common, number: int
) -> Iterator[tuple[Server, WorkerPool]]:
    log, pool, delegations = common.log, WorkerPool(), Delegations(common.log)
    locks = AttachmentLocks(common.locks.open(), pool.pass_on)
    with (
        daemon_host(common.data_dir, pool, delegations, common.readiness) as make_host,
        listener.acceptor(log) as acceptor,
    ):
        yield (
            Server(
                acceptor, make_host, pool, delegations, locks, common.counters.rows[number], log
            ),
            pool,
        )
