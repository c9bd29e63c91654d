"""The pods' side of attachments: what a pod lost of its plan comes back."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Container, Iterable, Mapping

from cni_plugin.names import is_host_link_name
from daemon.config.schema import Settings
from daemon.routing.authors import PID_MAX
from daemon.routing.node_side import AGAIN, LATER, YOUNG, Attached, Idle, text_of
from daemon.routing.reporter import Reporter
from kernel.describe import name_of
from kernel.errors import KernelError, TooManyObjects
from kernel.netlink.pod_events import ChangedPods, PodEvents
from kernel.netlink.socket import Netlink
from kernel.pairs import read_pairs
from kernel.pod_side import open_pod, repair_pod

AT_ONCE = 8
"""Pods that are entered in one comparison."""
_NEXT = 0.2
"""Seconds until the next ones are."""
_SHARE = 20
"""A pod that changes all the time takes no more than one of so many seconds."""
_UNKNOWN = 10.0
"""Seconds for which a pod that is not known yet is waited for: its ADD goes on."""
_ALL_AGAIN = 30.0
"""Seconds at least between comparisons of all pods because events were lost."""


class PodSides:
    """Repairs the pods of the daemon's own network, some at a time.

    Of other networks a later plugin of the chain may have changed them. wait: seconds until more
    are due; None: none are.
    """

    def __init__(self, nl: Netlink, settings: Settings, reporter: Reporter, idle: Idle) -> None:
        self.wait: float | None = None
        self._nl, self._reporter, self._idle = nl, reporter, idle
        self._network = settings.conflist.name if settings.conflist else ""
        self._due: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._causes: dict[str, str] = {}
        self._wrong: dict[str, str] = {}
        self._all_at = -math.inf
        self._events: PodEvents | None = None
        self._has_events = True

    def close(self) -> None:
        """Close the socket of their events."""
        if self._events:
            self._events.close()

    def expect(self, names: Iterable[str]) -> None:
        """The pods of these links may have lost something."""
        until = time.monotonic() + _UNKNOWN
        self._due |= dict.fromkeys(names, until)

    def read_events(self, known: Collection[str]) -> bool:
        """Expect what changed inside pods; whether anything did. known: the links of pods.

        Raises KernelError.
        """
        changed, now = self._read_events(), time.monotonic()
        if changed.any and now >= self._all_at:
            self._all_at = now + _ALL_AGAIN
            self.expect(known)
        for end in read_pairs(self._nl) if changed.authors else ():
            # Also of a pod that was just attached, and is not known yet.
            if end.namespace in changed.authors and is_host_link_name(end.link.name):
                self.expect([end.link.name])
                self._causes[end.link.name] = _describe_author(changed.authors[end.namespace])
        return bool(changed.authors) and not self._due.keys().isdisjoint(known)

    def _read_events(self) -> ChangedPods:
        if self._events is None and self._has_events:
            try:
                self._events = PodEvents()
            except KernelError as error:  # it lacks CAP_NET_BROADCAST
                self._has_events = False
                text = "changes inside pods are found at the regular resync alone"
                self._reporter.log.info(f"{text}: {error}")
        return self._events.read() if self._events else ChangedPods()

    def repair(
        self, attached: Iterable[Attached], since: Mapping[int, float], now: float
    ) -> dict[str, str]:
        """Repair some that are due; why a pod is not as planned, by the name of its link.

        since: when each link was first seen, by its index.
        """
        waits: dict[str, float] = {}
        batch: list[Attached] = []
        attached = tuple(attached)
        for each in attached:
            if each.name in self._due and self._is_ours(each) and each.link:
                young = YOUNG - (now - since.get(each.link.index, now))
                paused = self._not_before.get(each.name, now) - now
                waits[each.name] = max(young, self._reporter.pause_before(_key(each)), paused, 0.0)
                if waits[each.name] == 0 and len(batch) < AT_ONCE:
                    batch.append(each)
        with self._idle(each.call for each in batch) as idle:
            for each in batch:
                if each.call not in idle:
                    waits[each.name] = LATER
                    continue
                del waits[each.name]
                if self._repair_timed(each):
                    waits[each.name] = AGAIN
        self._forget(waits, {each.name for each in attached}, now)
        self.wait = max(_NEXT, min(waits.values())) if waits else None
        return dict(self._wrong)

    def _repair_timed(self, each: Attached) -> str:
        began = time.monotonic()
        fault = self._wrong[each.name] = self._repair(each)
        self._not_before[each.name] = began + _SHARE * (time.monotonic() - began)
        return fault

    def _forget(self, waiting: Container[str], known: Container[str], now: float) -> None:
        """What is not about pods that are compared again, or are just being attached."""
        self._due = {
            n: until
            for n, until in self._due.items()
            if n in waiting or (n not in known and until > now)
        }
        self._not_before = {n: t for n, t in self._not_before.items() if t > now}
        self._causes = {n: cause for n, cause in self._causes.items() if n in self._due}
        self._wrong = {n: why for n, why in self._wrong.items() if why and n in waiting}

    def _is_ours(self, each: Attached) -> bool:
        return each.owner.network == self._network and each.record.complete

    def _repair(self, each: Attached) -> str:
        """Repair one pod; why it is not as planned, empty where it is, or cannot be entered."""
        title = each.title_in_pod
        try:
            pod = open_pod(self._nl, each.record.netns, each.name)
            if pod is None:
                return ""  # a daemon in a container may not see the runtime's paths
            with pod:
                done, left = repair_pod(pod, each.record.plan.pod)
        except TooManyObjects as error:  # a router's, or a trap
            self._reporter.log.debug(f"{title} is not compared: {error}")
            return ""
        except KernelError as error:
            self._reporter.report_failure(f"{title}: {error}")
            return f"in the pod: {error}"
        if done:
            after = "; ".join(name_of(change.noun) for change in done)
            cause = self._causes.get(each.name, "changed in the pod")
            self._reporter.report_repair(_key(each), title, cause, text_of(done), after)
        return f"in the pod: {text_of(left)}" if left else ""


def _describe_author(port: int) -> str:
    """Who made a change. Of a process its own namespace alone knows the ID."""
    if port == 0:
        return "changed in the pod by the kernel"
    return f"changed in the pod by pid {port}" if port <= PID_MAX else "changed in the pod"


def _key(each: Attached) -> tuple[str, str]:
    return "pod", each.name
