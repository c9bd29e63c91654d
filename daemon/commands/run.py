"""`podwired run`: the whole daemon, CNI calls and routes to all other nodes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.errors import CniError
from daemon.cni_server.call_counters import Tally
from daemon.cni_server.processes import processes_wanted
from daemon.cni_server.service import open_log, serve
from daemon.commands.options import (
    DEFAULT_CONFIG,
    DEFAULT_DATA_DIR,
    DEFAULT_SOCKET,
    FAILED,
    Unusable,
    add_config,
    add_log_level,
    path_from_environment,
    salvaged_places,
    settings_of,
)
from daemon.log import Log
from daemon.signals import Signals
from daemon.systemd import is_activated
from ipam.errors import IpamError

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.status import NodeStatus, StatusFile

DESCRIPTION = "Serve this node's CNI calls, and keep its routes to the pods of all other nodes."
EPILOG = f"""\
Without --config, and where there is no {DEFAULT_CONFIG}, it serves CNI calls
alone, like `podwired serve`. So it does with a configuration that is wrong, says so in the log and
in `podwired status`, and begins anew when the file is right. When it ends, routes and the CNI
configuration stay as they are.

signals: TERM, INT   take no further call, finish those under way, end
         USR1        switch the log between info and debug
environment: PODWIRE_SOCKET, PODWIRE_DATA_DIR for what the file leaves out; systemd's LISTEN_FDS,
         NOTIFY_SOCKET
see also: podwired check-config, podwired status, podwired history
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config(parser)
    add_log_level(parser)


def run(options: argparse.Namespace) -> int:
    """Serve and route until a signal; the exit status."""
    log = open_log(options.log_level)
    try:
        return _run(options.config, log, Signals(log))
    except (Unusable, CniError, IpamError, OSError) as error:
        log.error(str(error))
        return FAILED


def _run(config: Path | None, log: Log, signals: Signals) -> int:
    try:
        settings = settings_of(config)
    except Unusable as error:
        return _serve_meanwhile(config, str(error), log, signals)
    if settings is None:
        return _serve_alone(log, signals)
    try:
        status = _open_status(settings)
    except (Unusable, OSError) as error:
        # Without systemd nobody waits at a socket that nobody serves.
        if not is_activated():
            raise
        return _serve_meanwhile(config, str(error), log, signals)
    return _route(settings, status, log, signals)


def _serve_alone(log: Log, signals: Signals) -> int:
    log.warning(f"no {DEFAULT_CONFIG}: routes to other nodes are not podwire's")
    socket_path = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
    data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    return serve(socket_path, data_dir, log, signals)


def _serve_meanwhile(config: Path | None, fault: str, log: Log, signals: Signals) -> int:
    from daemon.makeshift import Makeshift

    def attempt(held: Path) -> None:
        settings = settings_of(config)
        if settings is not None and settings.status_file != held:
            _open_status(settings).close()

    return Makeshift(attempt, salvaged_places(config), log).serve(fault, signals)


def _open_status(settings: Settings) -> StatusFile:
    from daemon.filefaults import explain
    from daemon.status import AnotherDaemon, StatusFile

    try:
        return StatusFile(settings.status_file)
    except AnotherDaemon as error:
        raise Unusable(str(error)) from error
    except OSError as error:
        raise Unusable(explain("the status", settings.status_file, error, "statusFile")) from error


def _route(settings: Settings, status: StatusFile, log: Log, signals: Signals) -> int:
    from daemon.cni_server.readiness import Readiness
    from daemon.journal import Journal
    from daemon.metrics.collector import Sources
    from daemon.metrics.serving import metrics_served
    from daemon.routing.thread import Routing

    journal = Journal(settings.journal.path, settings.journal.max_bytes)
    tally = Tally(processes_wanted())

    def keep(found: NodeStatus) -> None:
        status.write(replace(found, calls_fault=tally.fault))

    readiness = Readiness(settings.conflist.name if settings.conflist else "", keep)
    routing = Routing(settings, journal, log, readiness.publish)
    sources = Sources(settings, tally, routing.counts, journal, routing.health)

    @contextmanager
    def beside() -> Iterator[None]:
        with routing, metrics_served(sources, log):
            yield

    with closing(status), closing(journal):
        return serve(
            settings.socket,
            settings.data_dir,
            log,
            signals,
            readiness.fault,
            tally,
            beside=beside(),
        )
