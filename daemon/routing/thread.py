"""`podwired run`'s routing half: source, plan, kernel, in one thread that sleeps until news."""

from __future__ import annotations

import math
import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from daemon.config.schema import Settings
from daemon.journal import Journal
from daemon.log import Log
from daemon.probes.prober import Health
from daemon.routing.counters import Counts
from daemon.routing.loop import Loop
from daemon.routing.restarts import Restarts
from daemon.status import NodeStatus
from kernel.netlink.socket import close_kept_sockets, keep_sockets_open

STOP_SECONDS = 30.0


class Routing:
    """Keeps this node's routes from `start` to `stop`, which leaves them in place.

    publish: takes the status whenever it may have changed. health: of the ways to other nodes; None
    where it is not wanted. counts: what was done since the start.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        log: Log,
        publish: Callable[[NodeStatus], None],
    ) -> None:
        self._settings, self._journal, self._log = settings, journal, log
        self._publish = publish
        wanted, port = settings.health, settings.vxlan.port
        self.health = Health(wanted, port, log) if wanted else None
        self.counts = Counts()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="routing", daemon=True)

    def __enter__(self) -> Routing:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        if self.health:
            self.health.start()

    def stop(self) -> bool:
        """End the threads; whether they did in time."""
        self._stopping = True
        if self.health:
            self.health.stop()
        os.eventfd_write(self._bell, 1)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        keep_sockets_open()
        try:
            self._go_on()
        finally:
            close_kept_sockets()

    def _go_on(self) -> None:
        restarts = Restarts(self._log)
        while not self._stopping:
            try:
                with self._open_loop() as loop:
                    while not self._stopping:
                        loop.turn(self._bell)
            except Exception as error:  # whatever it is, routing must go on
                pause = restarts.note(error)
                self._log.debug(traceback.format_exc())
                self._publish_failure(error)
                self._rest(pause)

    def _open_loop(self) -> Loop:
        return Loop(
            self._settings, self._journal, self._log, self._publish, self.health, self.counts
        )

    def _publish_failure(self, error: Exception) -> None:
        text, settings = f"routing fails: {error!r}", self._settings
        status = NodeStatus(settings.node, settings.backend, settings.source.kind, fault=text)
        self.counts.begin_anew(status)
        with suppress(OSError):  # what is in the way of the file was told
            self._publish(replace(status, last_error=text, last_error_time=time.time()))

    def _rest(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.poll(math.ceil(seconds * 1000))
