"""The kernel is brought to the desired state and kept there; only what is due is read.

Order: settings, device, FDB entries, neighbours, routes; removal the other way round. Rules come
before routes where the plan changed them, and last where others did.
Every step is repeatable: what failed is due again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.routing.nft_rules import NftRules
from daemon.routing.peer_routes import RETRY, PeerRoutes
from daemon.routing.reporter import Reporter, describe_event
from daemon.routing.sysctls import Sysctls
from daemon.routing.vxlan_device import VxlanDevice
from ipam.errors import IpamError
from kernel.errors import KernelError
from kernel.model import Address, Entry, Link
from kernel.netlink.monitor import Event, Monitor, RuleChange
from kernel.netlink.socket import Netlink

Wait = float | None
"""Seconds until something may be done; None: until an event."""


class Reconciler:
    """Reconciles one network namespace: that of the thread that makes it."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self.nl, self.events = Netlink(), Monitor()
        self._reporter = reporter
        self._sysctls = Sysctls(self.nl, reporter)
        self._device = VxlanDevice(self.nl, settings, reporter)
        self._rules = NftRules(settings.data_dir, reporter)
        self._routes = PeerRoutes(self.nl, self._device.name, reporter)
        self._has_old = True
        self._down: set[str] = set()
        self._watched = 0
        self.events.ignore(self.nl.port)

    def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self.events.close()
        self.nl.close()

    def adopt(self) -> Iterable[Entry]:
        """What an earlier daemon left; it stays until a plan differs. Raises KernelError."""
        return self._routes.adopt()

    def receive(self, event: Event, desired: Desired | None) -> None:
        """Take an event in. desired: as last reconciled."""
        noun = event.noun
        if event.kind == "lost":
            self.resync("found after events were lost")
        elif event.kind == "netconf":
            self._sysctls.is_due = True
        elif isinstance(noun, RuleChange):
            self._rules.receive(noun, event)
        elif isinstance(noun, Link):
            self._rules.receive_link(noun.index, deleted=event.deleted)
            self._receive_link(noun, event, desired)
        elif isinstance(noun, Address):
            if noun.link == self._device.name and not noun.address.is_link_local:
                self._device.resync(describe_event("changed", event))
        else:
            self._routes.receive(event)

    def _receive_link(self, link: Link, event: Event, desired: Desired | None) -> None:
        how = describe_event("removed" if event.deleted else "changed", event)
        cause = f"link {link.name} was {how}"
        if link.name == self._device.name:
            self._device.resync(cause)
        elif desired and link.name in (desired.uplink, "lo"):
            down = event.deleted or not link.up
            # IPv4 routes through a link that goes down vanish without an event
            # (net/ipv4/fib_frontend.c, fib_disable_ip).
            if down != (link.name in self._down):
                (self._down.add if down else self._down.discard)(link.name)
                self._device.resync(cause)
                self._routes.resync(cause)

    def resync(self, cause: str) -> None:
        """Read and compare everything once."""
        self._device.resync(cause)
        self._routes.resync(cause)
        self._rules.resync(cause)
        self._sysctls.is_due = True

    def tick(self) -> None:
        """Compare what changes without an event: most settings."""
        self._sysctls.is_due = True

    @property
    def entries(self) -> tuple[int, int]:
        """How many entries are desired, and how many of them the kernel has."""
        entries = self._routes.entries
        return len(entries.desired), len(entries.desired) - entries.out_of_sync()

    @property
    def is_settled(self) -> bool:
        """Whether all that is known is as desired."""
        due = self._device.is_due or self._rules.is_due or self._sysctls.is_due
        return not due and not self._routes.entries.out_of_sync()

    def reconcile(self, desired: Desired) -> Wait:
        """Do what is due; in how many seconds more is."""
        self._routes.plan(desired)
        steps: list[Callable[[], Wait]] = [
            partial(self._reconcile_sysctls, desired),
            partial(self._reconcile_device, desired),
            partial(self._reconcile_routes, desired),
        ]
        # What others removed comes back without waiting for the store, which rules need.
        rules = partial(self._rules.reconcile, desired)
        steps.insert(2 if self._rules.plan(desired) else 3, rules)
        waits = [self._attempt(step) for step in steps]
        return min((wait for wait in waits if wait is not None), default=None)

    def _attempt(self, step: Callable[[], Wait]) -> Wait:
        try:
            return step()
        except (KernelError, IpamError, OSError) as error:
            self._reporter.report_failure(str(error))
            return RETRY

    def _reconcile_sysctls(self, desired: Desired) -> Wait:
        lost = self._device.is_lost() or not self._device.index
        return self._sysctls.reconcile(desired, self._device.name if lost else "")

    def _reconcile_device(self, desired: Desired) -> Wait:
        result = self._device.reconcile(desired)
        if self._device.index != self._watched:
            self._watched = self._device.index
            self.events.ignore(self.nl.port, self._watched)
        if result.cause is not None:
            self._routes.resync(result.cause)
            self._sysctls.expect()
            self._reconcile_sysctls(desired)
        return result.wait

    def _reconcile_routes(self, desired: Desired) -> Wait:
        wait = None
        if not self._reporter.faults["device"] and not self._device.is_lost():
            wait = self._attempt(partial(self._reconcile_entries, desired))
        if not self._reporter.faults["device"] and self._device.is_lost():
            again = self._device.wait()
            return again if wait is None else min(wait, again)
        return wait

    def _reconcile_entries(self, desired: Desired) -> Wait:
        wait = self._routes.reconcile(desired, has_device=bool(self._device.index))
        if desired.device is not None:
            self._has_old = True
        elif self._has_old:
            # Last: the routes through it have been replaced.
            self._device.remove_old(desired)
            self._has_old = False
        return wait
