"""Connections that a change of policies forbids: they are cut, and neither end revives them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from daemon.policy.compile import LocalPod, allows
from kernel.conntrack import Connection, forget_forbidden
from kernel.model import IPAddress
from kernel.nftables.policy import CUT_SECONDS, CUTS_MAX, load_policy, read_cuts, render_cuts
from kernel.nftables.policy_rules import Direction, Place, PolicyRules


class Cuts:
    """Those that were cut and are still forbidden. total: how many were cut so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._clock = clock
        self._known: dict[Connection, float] = {}
        """Each with the time when the kernel forgets it."""

    @property
    def all(self) -> tuple[Connection, ...]:
        """Those that are remembered."""
        now = self._clock()
        return tuple(cut for cut, end in self._known.items() if end > now)

    def resume(self) -> None:
        """Remember what an earlier daemon cut: rules made anew must not let it go on.

        The kernel has both directions of each; which of them policies forbid, `forbidden` decides.
        Raises KernelError.
        """
        self._known = self._lasting(read_cuts())

    def _lasting(self, cuts: Iterable[Connection]) -> dict[Connection, float]:
        return dict.fromkeys(cuts, self._clock() + CUT_SECONDS)

    def forbidden(self, rules: PolicyRules, pods: Iterable[LocalPod]) -> tuple[Connection, ...]:
        """Those that these rules forbid, too."""
        judge = _Judge(rules, pods)
        return tuple(cut for cut in self.all if not judge.allows(cut))

    def keep(self, cuts: Sequence[Connection], *, loaded: bool) -> None:
        """Remember these alone. loaded: whether the kernel has just them. Raises KernelError."""
        if loaded:
            self._known = self._lasting(cuts)
        else:
            self._replace({cut: self._known[cut] for cut in cuts}, ())

    def _replace(self, known: dict[Connection, float], new: Collection[Connection]) -> None:
        """Remember these alone. new: those that the kernel does not have yet.

        It is told of what differs: to load all that it may have takes seconds.
        """
        gone = [c for c in self.all if c not in known and c.reverse not in known]
        self._known = known
        if script := render_cuts(gone, new):
            load_policy(script)

    def cut(self, rules: PolicyRules, pods: Sequence[LocalPod], places: frozenset[Place]) -> int:
        """Cut what these rules forbid to these pods; how many connections.

        Raises KernelError.
        """
        addresses = [a for pod in pods if not places.isdisjoint(pod.places) for a in pod.addresses]
        judge = _Judge(rules, pods)

        def is_forbidden(connection: Connection) -> bool:
            return not judge.allows(connection)

        # Remembered before their entries go: the next packet would make an entry again.
        found = forget_forbidden(addresses, is_forbidden, self._remember) if addresses else []
        self.total += len(found)
        return len(found)

    def _remember(self, connections: Iterable[Connection]) -> None:
        new = self._lasting(connections)
        known = {cut: self._known[cut] for cut in self.all if cut not in new} | new
        for cut in [*known][: max(0, len(known) - CUTS_MAX)]:
            del known[cut]
        self._replace(known, known.keys() & new.keys())


class _Judge:
    """Decides by rules for the pods of this node that a connection concerns."""

    def __init__(self, rules: PolicyRules, pods: Iterable[LocalPod]) -> None:
        self._rules = rules
        self._pods: dict[IPAddress, list[LocalPod]] = defaultdict(list)
        for pod in pods:
            for address in pod.addresses:
                self._pods[address].append(pod)

    def allows(self, cut: Connection) -> bool:
        """Whether all of them may have it."""
        ends: tuple[tuple[Direction, IPAddress, IPAddress], ...] = (
            ("egress", cut.source, cut.destination),
            ("ingress", cut.destination, cut.source),
        )
        return all(
            allows(
                self._rules,
                direction,
                own if pod.is_bridged else pod.link,
                peer,
                cut.protocol,
                cut.port,
            )
            for direction, own, peer in ends
            for pod in self._pods.get(own, ())
            if peer not in pod.addresses
        )
