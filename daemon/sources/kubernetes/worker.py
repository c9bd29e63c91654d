"""What a daemon does beside listening: read its own Node, publish itself, ask about others."""

from __future__ import annotations

import threading
import time
import traceback

from daemon.log import Log
from daemon.sources.kubernetes.api import Api, ApiError, node_path
from daemon.sources.kubernetes.cluster_view import Own, Picture
from daemon.sources.kubernetes.objects import Authority, Unusable, parse_authority
from daemon.sources.kubernetes.own_object import Presence, Trouble
from daemon.sources.kubernetes.pace import Bucket, Pace
from daemon.sources.remote import SourceError
from kernel.model import IPNetwork

OWN_SECONDS = 600.0
"""Between two looks at the own Node that has all that it needs, give or take a fifth."""
DENIED_SECONDS = 300.0
"""The same for Nodes that did not bear out what was claimed for them."""
_NOT_FOUND = 404
_STOP_SECONDS = 5.0
_AGAIN_SECONDS, _PAUSE_SECONDS = 1.0, 30.0


class Chores:
    """A thread that does them, one after the other, from `start` to `stop`."""

    def __init__(
        self,
        presence: Presence,
        picture: Picture,
        ranges: tuple[IPNetwork, ...],
        log: Log,
        trouble: Trouble,
    ) -> None:
        self._presence, self._picture, self._ranges = presence, picture, ranges
        self._log, self._trouble = log, trouble
        self._bell = threading.Condition()
        self._heard: Own | None = None
        self._rung = self._had_object = self._is_gone = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._own, self._publish, self._ask, self._denied = Pace(), Pace(), Pace(), Pace()
        self._bucket = Bucket()
        self._denied.later(time.monotonic(), DENIED_SECONDS)

    def start(self, api: Api) -> None:
        """Begin, over those connections."""
        self._stop = threading.Event()
        words = api, self._stop
        self._thread = threading.Thread(target=self._run, args=words, name="chores", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End. One that hangs in a request is left to its time limit."""
        with self._bell:
            self._stop.set()
            self._bell.notify()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def hear(self, own: Own) -> None:
        """The API said something of this node's object; the newest is what counts."""
        with self._bell:
            self._heard = own.after(self._heard) if self._heard else own
            if own.thing is not None:
                self._had_object = True
            elif own.is_readable:
                self._is_gone = True
            self._bell.notify()

    def wake(self) -> None:
        """There may be questions."""
        with self._bell:
            self._rung = True
            self._bell.notify()

    def read_own(self, api: Api) -> None:
        """Read the own Node now. Raises SourceError where nobody answers."""
        now = time.monotonic()
        self._own.soon(now)
        if self._presence.read(api) and self._presence.is_complete:
            self._own.later(now, OWN_SECONDS)

    def _run(self, api: Api, stop: threading.Event) -> None:
        while not stop.is_set():
            wait = self._try_to_work(api, stop)
            with self._bell:
                if not (stop.is_set() or self._rung or self._heard):
                    self._bell.wait(wait)
                self._rung = False

    def _try_to_work(self, api: Api, stop: threading.Event) -> float:
        try:
            wait = self._work(api, stop)
        except SourceError as error:
            # Of an engine that is away, whoever listens to it tells.
            self._log.debug(f"{error}")
            return _AGAIN_SECONDS
        except Exception as error:  # whatever it is, the daemon must go on
            if not stop.is_set():  # else its connections were closed
                self._trouble("chores", f"the source fails: {error!r}")
                self._log.debug(traceback.format_exc())
            return _PAUSE_SECONDS
        self._trouble("chores", "")
        return wait

    def _work(self, api: Api, stop: threading.Event) -> float:
        """Do what is due; seconds until something is. Raises SourceError."""
        self._listen()
        now = time.monotonic()
        if now >= self._own.due:
            self.read_own(api)
        if self._presence.must_publish and now >= self._publish.due:
            self._publish.soon(now)
            self._presence.publish(api)
        if now >= self._denied.due:
            self._denied.later(now, DENIED_SECONDS)
            self._picture.ask_again()
        self._ask_about_others(api, stop)
        return self._wait()

    def _wait(self) -> float:
        now = time.monotonic()
        dues = [self._own.due - now, self._denied.due - now]
        if self._presence.must_publish:
            dues.append(self._publish.due - now)
        if self._picture.questions:
            dues.append(max(self._bucket.wait(now), self._ask.due - now))
        return max(0.0, min(dues))

    def _listen(self) -> None:
        with self._bell:
            own, self._heard = self._heard, None
            is_gone, self._is_gone = self._is_gone, False
            had_object = self._had_object
            self._had_object = bool(own and own.thing) or (had_object and not is_gone)
        if own is None:
            return
        # A daemon that goes on where an earlier one was has not heard of it yet.
        if is_gone and (had_object or self._presence.is_published):
            # It goes with its Node: the next one may have another Node for an owner.
            self._own.soon(time.monotonic())
        self._presence.hear(own)

    def _ask_about_others(self, api: Api, stop: threading.Event) -> None:
        self._bucket.share(self._picture.size)
        if not self._picture.questions:  # what could not be answered may not be claimed any more
            self._trouble("ask", "")
        for name in self._picture.questions:
            now = time.monotonic()
            if stop.is_set() or now < self._ask.due or self._bucket.wait(now) > 0:
                return
            number = self._picture.question(name)
            if not number:
                continue  # answered meanwhile
            self._bucket.take()
            try:
                self._picture.rule(name, self._read_node(api, name), number)
                self._trouble("ask", "")
            except SourceError as error:
                self._ask.soon(now)
                if isinstance(error, ApiError):
                    self._trouble("ask", f"{name} claims something new, unproven: {error}")
                raise

    def _read_node(self, api: Api, name: str) -> Authority | None:
        try:
            authority = parse_authority(api.get(node_path(name)), self._ranges)
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        except Unusable:
            return Authority(name, "", (), ())
        return authority if authority.name == name else Authority(name, "", (), ())
