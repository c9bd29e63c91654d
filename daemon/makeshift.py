"""`podwired run` with a configuration that it cannot use: CNI calls are served all the same.

systemd holds the socket whether the daemon runs or not, and a call that nobody takes waits for
minutes. So calls are served as they are without a configuration, the fault is said wherever
somebody may look, and the daemon begins anew as soon as the file is right.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from daemon.caught import hold
from daemon.cni_server.call_counters import Tally
from daemon.cni_server.processes import processes_wanted
from daemon.cni_server.readiness import Readiness
from daemon.cni_server.service import serve
from daemon.log import Log
from daemon.metrics.meanwhile import fault_served
from daemon.routing.counters import Counts, Seen
from daemon.salvage import Places
from daemon.signals import Signals
from daemon.status import AnotherDaemon, NodeStatus, StatusFile
from daemon.systemd import keep_inherited_socket

LOOK_SECONDS = 2.0
"""Seconds between looks whether the configuration is right again."""


class Makeshift:
    """Serves in the place of a daemon that cannot be as configured.

    attempt: raises what is wrong; it is tried again and again, with the path of the status file
    that this one holds. places: where the daemon is found.
    """

    def __init__(self, attempt: Callable[[Path], None], places: Places, log: Log) -> None:
        self._attempt, self._places, self._log = attempt, places, log
        self._fault, self._since, self._mended = "", 0.0, False
        self._counts, self._tally = Counts(), Tally(processes_wanted())
        self._held: StatusFile | None = None
        self._readiness = Readiness(places.network, self._keep)

    def serve(self, fault: str, signals: Signals) -> int:
        """Serve until told to stop, or the configuration is mended: the process is another then.

        The exit status. Raises CniError, OSError.
        """
        with ExitStack() as held:
            with suppress(AnotherDaemon, OSError):
                self._held = StatusFile(self._places.status_file)
                held.callback(self._held.close)
            self._say(fault)
            status = serve(
                self._places.socket,
                self._places.data_dir,
                self._log,
                signals,
                self._readiness.fault,
                self._tally,
                beside=self._looking(signals.stop),
            )
        hold()
        if self._mended and not signals.ending:
            begin_anew()
        return status

    @contextmanager
    def _looking(self, stop: threading.Event) -> Iterator[None]:
        looker = threading.Thread(target=self._look, args=(stop,), name="mended", daemon=True)
        with fault_served(self._places.metrics, self._counts, self._tally, self._log):
            looker.start()
            yield
            looker.join()

    def _look(self, stop: threading.Event) -> None:
        right = 0
        while not stop.wait(LOOK_SECONDS):
            try:
                self._attempt(self._places.status_file)
            except Exception as error:  # whatever it is, it is no reason to look no more
                right = 0
                self._say(str(error))
                continue
            self._counts.turned = time.monotonic()
            right += 1
            # Twice: half of a file that is being written may be right by itself.
            if right > 1:
                self._log.info("the configuration can be used now: beginning anew")
                self._mended = True
                stop.set()

    def _say(self, fault: str) -> None:
        began = time.monotonic()
        if fault != self._fault:
            self._log.error(f"CNI calls are served, but routes are not kept: {fault}")
            self._since = time.time()
        self._fault = fault
        status = NodeStatus(
            self._places.node,
            "unknown",
            "unknown",
            fault=f"its configuration cannot be used: {fault}",
            metrics_fault=self._counts.endpoint_fault,
            calls_fault=self._tally.fault,
            last_error=fault,
            last_error_time=self._since,
        )
        with suppress(OSError):
            self._readiness.publish(status)
        self._counts.turn(began, Seen(status, None, None, None))

    def _keep(self, status: NodeStatus) -> None:
        if self._held is not None:
            self._held.write(status)


def begin_anew() -> None:
    """Execute this program again in the same process, with systemd's socket if it has that."""
    keep_inherited_socket()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - no shell is wanted
