"""The pods' side of attachments: what a pod lost of its plan comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from daemon.config.schema import Settings
from daemon.routing.node_side import AGAIN, LATER, YOUNG, Attached, Idle, text_of
from daemon.routing.reporter import Reporter
from kernel.describe import name_of
from kernel.errors import KernelError, TooManyObjects
from kernel.netlink.socket import Netlink
from kernel.pod_side import open_pod, repair_pod

AT_ONCE = 8
"""Pods that are entered in one comparison."""
_NEXT = 0.2
"""Seconds until the next ones are."""


class PodSides:
    """Repairs the pods of the daemon's own network, some at a time.

    Of other networks a later plugin of the chain may have changed them. wait: seconds until more
    are due; None: none are.
    """

    def __init__(self, nl: Netlink, settings: Settings, reporter: Reporter, idle: Idle) -> None:
        self.wait: float | None = None
        self._nl, self._reporter, self._idle = nl, reporter, idle
        self._network = settings.conflist.name if settings.conflist else ""
        self._due = set[str]()

    def expect(self, names: Iterable[str]) -> None:
        """The pods of these links may have lost something."""
        self._due.update(names)

    def repair(
        self, attached: Iterable[Attached], since: Mapping[int, float], now: float
    ) -> dict[str, str]:
        """Repair some that are due; why a pod is not as planned, by the name of its link.

        since: when each link was first seen, by its index.
        """
        waits: dict[str, float] = {}
        batch: list[Attached] = []
        for each in attached:
            if each.name in self._due and self._is_ours(each) and each.link:
                young = YOUNG - (now - since.get(each.link.index, now))
                waits[each.name] = max(young, self._reporter.pause_before(_key(each)), 0.0)
                if waits[each.name] == 0 and len(batch) < AT_ONCE:
                    batch.append(each)
        wrong: dict[str, str] = {}
        with self._idle(each.call for each in batch) as idle:
            for each in batch:
                del waits[each.name]
                fault = self._repair(each) if each.call in idle else ""
                if fault or each.call not in idle:
                    waits[each.name] = AGAIN if fault else LATER
                wrong |= {each.name: fault} if fault else {}
        self._due = set(waits)
        self.wait = max(_NEXT, min(waits.values())) if waits else None
        return wrong

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
            cause = "changed in the pod"
            self._reporter.report_repair(_key(each), title, cause, text_of(done), after)
        return f"in the pod: {text_of(left)}" if left else ""


def _key(each: Attached) -> tuple[str, str]:
    return "pod", each.name
