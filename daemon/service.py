"""The socket server from its start to its end, as `podwired serve` and `podwired run` have it."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

from cni_plugin.errors import CniError
from cni_plugin.host import always_ready
from daemon.gate import Gate
from daemon.listening import SHIM_SOCKET, Listener, listen
from daemon.log import Log
from daemon.notify import inherited_socket, notify
from daemon.server import Server
from daemon.world import daemon_host

STOP_SECONDS = 30.0
_COLLECT_AFTER = 10_000  # new objects; a CNI call leaves none behind in cycles


def open_log(level: str) -> Log:
    """The daemon's log, in the form that the reader of stderr wants."""
    return Log(level, journal="JOURNAL_STREAM" in os.environ)


def serve(
    socket_path: Path,
    data_dir: Path,
    log: Log,
    stop: threading.Event,
    readiness: Callable[[str], CniError | None] = always_ready,
) -> int:
    """Serve CNI calls until `stop`; the exit status. Raises CniError, OSError.

    readiness: why a network cannot be served now (see `cni_plugin.host.Host`).
    """
    inherited = inherited_socket()
    listener = Listener(inherited) if inherited else listen(socket_path)
    _tell_misled(listener, socket_path, log)
    gate = Gate()
    with listener, daemon_host(data_dir, gate, readiness) as host:
        server = Server(listener, host, gate, log)
        server.start()
        # What is there now stays: the collector need not look at it after every few calls.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        notify("READY=1")
        log.info("serving", socket=listener, data_dir=data_dir)
        stop.wait()
        notify("STOPPING=1")
        done = server.stop(STOP_SECONDS)
        log.info("stopped" if done else "stopped with calls under way")
    return 0 if done else 1


def _tell_misled(listener: Listener, socket_path: Path, log: Log) -> None:
    """Say what comes of a socket that is moved: the executable knows nothing of podwired.yaml."""
    place = str(listener)
    if place != str(socket_path):
        log.warning(f"socket {socket_path} is ignored: systemd's unit has its own", socket=place)
    if place != str(SHIM_SOCKET):
        why = "unless the container runtime's environment has PODWIRE_SOCKET"
        log.warning(f"CNI calls look for {SHIM_SOCKET}, and go the slow way {why}={place}")
