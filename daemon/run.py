"""`podwired run` and `podwired serve`: the daemon put together from its parts.

`serve` answers this node's CNI calls; `run` keeps the routes to all other nodes as well.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.errors import INVALID_ENVIRONMENT, CniError
from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_INDEX, DEFAULT_SOCKET
from cni_plugin.reclaim import reclaim_in_all_stores
from daemon.cni_server.attachment_locks import AttachmentLocks, IdleAttachments, LocksFile
from daemon.cni_server.call_counters import CallCounters
from daemon.cni_server.host import daemon_host
from daemon.cni_server.listener import Listener
from daemon.cni_server.processes import Processes, process_count
from daemon.cni_server.readiness import Readiness
from daemon.cni_server.server import Server
from daemon.cni_server.worker_pool import Delegations, WorkerPool
from daemon.config import DEFAULT_CONFIG, DEFAULT_JOURNAL_BYTES, JOURNAL
from daemon.liveness.health_file import HealthFile
from daemon.liveness.systemd import notify
from daemon.liveness.watchdog import Watchdog, WatchedLoop
from daemon.log import Log
from daemon.options import Unusable, path_from_environment, settings_of
from daemon.signals import Signals
from ipam.errors import IpamError

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.status import NodeStatus, StatusFile

STOP_SECONDS = 30.0
CHECK_SECONDS = 0.5
"""Seconds between checks whether calls are stuck, or a process died."""
_GRACE_SECONDS = 1.0
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_COLLECT_AFTER = 10_000  # new objects; a CNI call leaves none behind in cycles


def run(config: Path | None, log_level: str) -> int:
    """Serve calls and keep routes until a signal; the exit status."""
    return _started(log_level, partial(_run, config))


def serve(socket_path: Path, data_dir: Path, log_level: str) -> int:
    """Serve calls alone until a signal; the exit status."""
    return _started(log_level, partial(_serve, socket_path, data_dir))


def _share_heap() -> None:
    """Let all threads have one heap, without large buffers in it.

    glibc gives each thread its own, with what is free in it; Python lets one thread work at a time,
    so that they do not wait for each other. And it moves the size from which a buffer is given
    back to the kernel (mallopt(3), M_MMAP_THRESHOLD) up with each that is.
    """
    with suppress(AttributeError):  # other C libraries
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 17)


def _started(log_level: str, work: Callable[[Common], int]) -> int:
    _share_heap()
    log = Log(log_level, journal="JOURNAL_STREAM" in os.environ)
    try:
        with _forked(log) as common:
            return work(common)
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


def _serve(socket_path: Path, data_dir: Path, common: Common) -> int:
    _check_folder(data_dir)
    return _serve_alone(socket_path, data_dir, common)


def _check_folder(path: Path) -> None:
    """Refuse what can be no data directory: every call would fail. Raises CniError."""
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not place.is_dir():
        msg = f"the data directory {path} cannot be: {place} is no directory"
        raise CniError(INVALID_ENVIRONMENT, msg, "--data-dir or PODWIRE_DATA_DIR names it")


def _run(config: Path | None, common: Common) -> int:
    settings = settings_of(config)
    if settings is not None:
        return _route(settings, config or DEFAULT_CONFIG, common)
    common.log.warning(f"no {DEFAULT_CONFIG}: routes to other nodes are not podwire's")
    socket_path = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
    data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    return _serve_alone(socket_path, data_dir, common)


def _serve_alone(socket_path: Path, data_dir: Path, common: Common) -> int:
    """Serve calls without the routing loop, and keep the executables in place in its stead."""
    from daemon.journal import Journal
    from daemon.routing.kept_programs import KeptPrograms
    from daemon.routing.reporter import Reporter

    common.readiness.needs_routes = False
    with closing(Journal(data_dir / JOURNAL, DEFAULT_JOURNAL_BYTES)) as journal:
        reporter = Reporter(journal, common.log)
        programs = KeptPrograms(data_dir, reporter)

        def upkeep() -> None:
            programs.check()
            reporter.forget_calm()

        return _serve_calls(common, Service(socket_path, data_dir, upkeep=upkeep))


def _open_status(settings: Settings) -> StatusFile:
    from daemon.files import explain
    from daemon.status import AnotherDaemon, StatusFile

    try:
        return StatusFile(settings.status_file)
    except AnotherDaemon as error:
        raise Unusable(str(error)) from error
    except OSError as error:
        raise Unusable(explain("the status", settings.status_file, error, "statusFile")) from error


def _route(settings: Settings, config: Path, common: Common) -> int:
    network = settings.conflist.name if settings.conflist else ""
    with closing(_open_status(settings)) as status:
        beside = _routing_and_more(settings, config, common, status)
        service = Service(
            settings.socket, settings.data_dir, network, beside, lambda: status.is_in_place
        )
        return _serve_calls(common, service)


@contextmanager
def _routing_and_more(
    settings: Settings, config: Path, common: Common, status: StatusFile
) -> Iterator[None]:
    """What the first process does beside serving calls.

    Its modules are imported here: the other processes, which are forked by now, need none of them.
    """
    from daemon.journal import Journal
    from daemon.metrics import metrics_served
    from daemon.metrics.collector import Sources
    from daemon.outages import FailedCalls
    from daemon.policy import make_controller, policies_enforced
    from daemon.probes.peers_file import PeersFile
    from daemon.routing.loop import Routing

    log, watch, counters = common.log, common.watchdog.add, common.counters

    def publish(found: NodeStatus) -> None:
        common.readiness.publish(found)
        status.write(found)
        if routing.prober:
            peers.write(routing.prober.peers)
        if failed_calls.is_due(now := time.monotonic()):
            failed_calls.note(counters.read()["ADD"].codes, now)

    def unready() -> str:
        return policy.unready if policy else ""

    def others() -> dict[str, str]:
        found = {"calls": counters.fault, "policy": policy.fault if policy else ""}
        return {part: text for part, text in found.items() if text}

    peers = PeersFile(settings.status_file)
    journal = Journal(settings.journal.path, settings.journal.max_bytes)
    with closing(peers), closing(journal):
        failed_calls = FailedCalls(journal)
        policy = make_controller(settings, journal, log, watch)
        idle = IdleAttachments(common.locks).holding
        routing = Routing(settings, journal, log, publish, config, idle, watch, unready, others)
        sources = Sources(settings, counters, routing.counts, journal, routing.prober, policy)
        enforced = policies_enforced(policy, log, routing.wake)
        with routing, enforced, metrics_served(sources, log, common.watchdog):
            yield


class Common:
    """What all processes that serve calls have in common, made before they are forked.

    processes: the forked ones, as the first one sees them. counters: with a row for each. health:
    made first, so that probes do not read what an earlier daemon wrote.
    """

    def __init__(self, log: Log, listener: Listener) -> None:
        self.health = HealthFile(log)
        self.log, self.signals, self.listener = log, Signals(log), listener
        self.watchdog, self.readiness, self.locks = Watchdog(log), Readiness(), LocksFile()
        self.counters, self.processes = CallCounters(process_count()), Processes(log)
        names = (f"calls of process {n + 1}" for n in range(len(self.counters.rows)))
        self.loops = [self.watchdog.add(name) for name in names]


@contextmanager
def _forked(log: Log) -> Iterator[Common]:
    """Fork the processes, which wait until there is something to serve. No thread may run yet.

    What is imported or read from now on they have no copy of: the settings and all of routing.
    """
    with Listener() as listener:
        common = Common(log, listener)
        _keep_from_collector()  # and the pages that it would touch are shared
        common.processes.fork(process_count() - 1, partial(_serve_beside, common))
        try:
            yield common
        finally:
            common.processes.wait(_GRACE_SECONDS)


@dataclass(frozen=True, slots=True)
class Service:
    """What is served.

    network: the one that needs routes to other nodes. beside: what else runs in the first process.
    is_in_place: whether the daemon's other files are where they were. upkeep: what else is done at
    each check.
    """

    socket: Path
    data_dir: Path
    network: str = ""
    beside: AbstractContextManager[object] = field(default_factory=nullcontext)
    is_in_place: Callable[[], bool] = lambda: True
    upkeep: Callable[[], None] = lambda: None


def _serve_calls(common: Common, service: Service) -> int:
    """Serve CNI calls until a signal; the exit status. Raises CniError, OSError, _Displaced."""
    if (socket_path := service.socket) != DEFAULT_SOCKET:
        why = "unless the container runtime's environment has PODWIRE_SOCKET"
        text = f"CNI calls look for {DEFAULT_SOCKET}, and go the slow way {why}={socket_path}"
        common.log.warning(text)
    common.listener.listen(socket_path)
    try:
        common.readiness.network = service.network
        common.processes.begin(json.dumps([str(service.data_dir), service.network]).encode())
        return _lead(common, service)
    finally:
        common.listener.shut_down()


def _keep_from_collector() -> None:
    """What there is now stays: the collector need not visit it after every few calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def _lead(common: Common, service: Service) -> int:
    """Serve in the first process until a signal, and wait for the others."""
    listener, processes, signals = common.listener, common.processes, common.signals
    signals.follow()
    reclaim_in_all_stores(service.data_dir, DEFAULT_INDEX, common.log.info)
    with _serving(common, 0, service.data_dir) as (server, pool), service.beside:
        _keep_from_collector()
        common.log.info("serving", socket=listener, data_dir=service.data_dir)
        notify("READY=1")
        displaced = ""
        while not displaced and not signals.stop.wait(CHECK_SECONDS):
            _check(pool, common.loops[0])
            for number in processes.find_dead():
                common.counters.drop(number)
                common.loops[number].end()
            common.health.write(common.watchdog.check(), common.readiness.unready)
            service.upkeep()
            displaced = _find_displaced(listener, service)
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


def _find_displaced(listener: Listener, service: Service) -> str:
    if not listener.is_in_place:
        return f"the socket {listener} was removed"
    return "" if service.is_in_place() else "the lock of the status was removed"


def _check(pool: WorkerPool, loop: WatchedLoop) -> None:
    """Relieve a thread that is stuck, and note whether calls are taken."""
    if pool.relieve():
        loop.beat()


def _serve_beside(common: Common, number: int, order: bytes) -> int:
    """Serve in a further process until the socket is shut down; the exit status."""
    data_dir, common.readiness.network = json.loads(order)
    with _serving(common, number, Path(data_dir)) as (server, pool):
        while not pool.closed.wait(CHECK_SECONDS):
            _check(pool, common.loops[number])
        return 0 if server.finish(STOP_SECONDS) else 1


@contextmanager
def _serving(common: Common, number: int, data_dir: Path) -> Iterator[tuple[Server, WorkerPool]]:
    log, pool, delegations = common.log, WorkerPool(), Delegations(common.log)
    locks = AttachmentLocks(common.locks.open(), pool.pass_on)
    with (
        daemon_host(data_dir, pool, delegations, common.readiness.fault) as make_host,
        common.listener.acceptor(log) as acceptor,
    ):
        yield (
            Server(
                acceptor, make_host, pool, delegations, locks, common.counters.rows[number], log
            ),
            pool,
        )
