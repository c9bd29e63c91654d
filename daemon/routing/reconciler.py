"""The kernel is brought to the desired state and kept there; only what is due is read.

Order: settings, filter of peers, device, FDB entries, neighbours, routes; removal the other way
round. Rules come before routes where the plan changed them, and last where others did.
Every step is repeatable: what failed is due again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from daemon.config import ORIGINAL_SYSCTLS
from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.routing.attachments import Attachments
from daemon.routing.authors import describe_event
from daemon.routing.nft_rules import NftRules
from daemon.routing.node_side import Idle
from daemon.routing.peer_filter import PeerFilter
from daemon.routing.peer_routes import RETRY, PeerRoutes
from daemon.routing.reporter import Part, Reporter
from daemon.routing.sysctls import Sysctls
from daemon.routing.vxlan_device import VxlanDevice
from ipam.errors import IpamError, StoreBusy
from kernel.errors import KernelError
from kernel.model import Address, Entry, Link, Route
from kernel.netlink.monitor import Event, Monitor, RuleChange
from kernel.netlink.socket import Netlink
from kernel.vxlan import is_automatic, is_stray_route

_ROUTES_FIRST: tuple[Part, ...] = ("settings", "filter", "device", "routes", "rules")
_RULES_FIRST: tuple[Part, ...] = ("settings", "filter", "device", "rules", "routes")
Wait = float | None
"""Seconds until something may be done; None: until an event."""


class Reconciler:
    """Reconciles one network namespace: that of the thread that makes it."""

    def __init__(self, settings: Settings, reporter: Reporter, idle: Idle) -> None:
        self.nl, self.events = Netlink(), Monitor()
        self._reporter = reporter
        mode = settings.conflist.mode if settings.conflist else ""
        self._sysctls = Sysctls(
            self.nl,
            settings.data_dir / ORIGINAL_SYSCTLS,
            reporter,
            routes_pods=mode == "ptp",
        )
        self._device = VxlanDevice(self.nl, settings, reporter)
        self._rules = NftRules(settings, reporter)
        self._routes = PeerRoutes(self.nl, self._device.name, reporter)
        self.attachments = Attachments(self.nl, settings, reporter, idle)
        self.filter = PeerFilter(settings, reporter)
        self._parts: Mapping[Part, Sysctls | PeerFilter | VxlanDevice | NftRules] = {
            "settings": self._sysctls,
            "filter": self.filter,
            "device": self._device,
            "rules": self._rules,
        }
        self._steps: Mapping[Part, Callable[[Desired], Wait]] = {
            "settings": self._reconcile_sysctls,
            "filter": self.filter.reconcile,
            "device": self._reconcile_device,
            "rules": self._rules.reconcile,
            "routes": self._reconcile_routes,
        }
        self._has_old = True
        self._down: set[str] = set()
        self._watched = 0
        self.events.ignore(self.nl.port)

    def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self.events.close()
        self.attachments.close()
        self.nl.close()

    def adopt(self) -> Iterable[Entry]:
        """What an earlier daemon left; it stays until a plan differs. Raises KernelError."""
        return self._routes.adopt()

    def receive(self, event: Event, desired: Desired | None) -> None:
        """Take an event in. desired: as last reconciled."""
        noun = event.noun
        self.attachments.receive(event)
        if event.kind == "lost":
            self.resync("found after events were lost")
        elif event.kind == "netconf":
            self._sysctls.is_due = True
        elif isinstance(noun, RuleChange):
            self._rules.receive(noun, event)
            self.filter.receive(noun, event)
        elif isinstance(noun, Link):
            self._rules.receive_link(noun.index, deleted=event.deleted)
            self._receive_link(noun, event, desired)
        elif isinstance(noun, Address):
            self._receive_address(noun, event)
        else:
            self._routes.receive(event)
            if not event.deleted and isinstance(noun, Route) and self._is_stray(noun):
                self._resync_device(describe_event("changed", event))

    def _is_stray(self, route: Route) -> bool:
        return route.link == self._device.name and is_stray_route(route)

    def _receive_address(self, address: Address, event: Event) -> None:
        link = address.link
        if link == self._device.name:
            if not is_automatic(address):
                self._resync_device(describe_event("changed", event))
        elif event.deleted and address.address.version == 4 and link in self._routes.entries.links:
            # With a link's last IPv4 address its routes vanish without an event
            # (net/ipv4/fib_frontend.c, fib_inetaddr_event).
            how = describe_event("removed", event)
            self._routes.resync(f"address {address.address} of link {link} was {how}")

    def _receive_link(self, link: Link, event: Event, desired: Desired | None) -> None:
        how = describe_event("removed" if event.deleted else "changed", event)
        cause = f"link {link.name} was {how}"
        if link.name == self._device.name:
            self._resync_device(cause)
        elif desired and link.name in {desired.uplink, "lo"} | self._routes.entries.links:
            down = event.deleted or not link.up
            # IPv4 routes through a link that goes down vanish without an event
            # (net/ipv4/fib_frontend.c, fib_disable_ip).
            if down != (link.name in self._down):
                (self._down.add if down else self._down.discard)(link.name)
                self._device.resync(cause)
                self._routes.resync(cause)

    def _resync_device(self, cause: str) -> None:
        # A setting that takes addresses along (disable_ipv6) is announced by their events alone.
        self._device.resync(cause)
        self._sysctls.is_due = True

    def resync(self, cause: str) -> None:
        """Read and compare everything once."""
        self._device.resync(cause)
        self._routes.resync(cause)
        self._rules.resync(cause)
        self.attachments.resync(cause)
        self.filter.resync(cause)
        self._sysctls.is_due = True

    def tick(self) -> None:
        """Compare what changes without an event: most settings."""
        self._sysctls.is_due = True
        with suppress(KernelError):  # reconciling reports what is wrong
            self.filter.tick()
        with suppress(KernelError):
            self.attachments.tick()

    @property
    def entries(self) -> tuple[int, int]:
        """How many entries are desired, and how many of them the kernel has."""
        entries = self._routes.entries
        return len(entries.desired), len(entries.desired) - entries.out_of_sync()

    @property
    def is_settled(self) -> bool:
        """Whether all that is known is as desired."""
        return not any(map(self._is_due, self._steps))

    def _is_due(self, part: Part) -> bool:
        if part == "routes":
            return self._routes.entries.has_touched  # a stray that stays counts, too
        return self._parts[part].is_due

    def reconcile(self, desired: Desired) -> Wait:
        """Do what is due; in how many seconds more is."""
        self._routes.plan(desired)
        # What others removed comes back without waiting for the store, which rules need.
        order = _RULES_FIRST if self._rules.plan(desired) else _ROUTES_FIRST
        waits = [self._attempt(part, desired) for part in order]
        return min((wait for wait in waits if wait is not None), default=None)

    def reconcile_attachments(self, desired: Desired | None) -> Wait:
        """Do what is due of the node's own attachments, with or without a plan; as `reconcile`."""
        try:
            return self.attachments.reconcile(desired)
        except (KernelError, IpamError, OSError) as error:
            self._reporter.report_failure(str(error))
            if not isinstance(error, StoreBusy):
                self._reporter.faults.set("attachments", str(error))
            return RETRY

    def _attempt(self, part: Part, desired: Desired) -> Wait:
        """Do a step; the fault of its part lasts until nothing of it is due."""
        faults = self._reporter.faults
        try:
            wait = self._steps[part](desired)
        except StoreBusy as error:  # by the calls of many pods
            self._reporter.report_failure(str(error))
            return RETRY
        except (KernelError, IpamError, OSError) as error:
            self._reporter.report_failure(str(error))
            faults.set(part, str(error))
            return RETRY
        if not self._is_due(part):
            faults.set(part, "")
        return wait

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
            self._attempt("settings", desired)
        if result.error:
            raise result.error
        return result.wait

    def _reconcile_routes(self, desired: Desired) -> Wait:
        if desired.device and not self._device.index:
            return None
        if self._device.is_lost():
            return self._device.wait()
        wait = self._routes.reconcile(desired, has_device=bool(self._device.index))
        if desired.device is not None:
            self._has_old = True
        elif self._has_old:
            # Last: the routes through it have been replaced.
            self._device.remove_old(desired)
            self._has_old = False
        if self._device.is_lost():
            again = self._device.wait()
            return again if wait is None else min(wait, again)
        return wait
