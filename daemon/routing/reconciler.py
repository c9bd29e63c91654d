"""The kernel brought to the plan, and kept there: what is due is done, and nothing else is read.

Order: settings, device, FDB entries, neighbours, routes; removal the other way round. Rules come
before routes where the plan changed them, and last where others did.
Every step is repeatable, so whatever fails is due again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.routing.mirror import Mirror
from daemon.routing.nft_rules import Rules
from daemon.routing.peer_routes import RETRY, Entries
from daemon.routing.reporter import Teller
from daemon.routing.sysctls import Switches
from daemon.routing.vxlan_device import Device
from daemon.routing.wording import tell_change
from ipam.errors import IpamError
from kernel.errors import KernelError
from kernel.model import Address, Entry, Link
from kernel.netlink.monitor import Event, Events, RuleChange
from kernel.netlink.socket import Netlink
from kernel.routes import read_entries


class Reconciler:
    """Acts on one network namespace: that of the thread that makes it."""

    def __init__(self, settings: Settings, teller: Teller) -> None:
        self.nl, self.events = Netlink(), Events()
        self.mirror = Mirror(settings.vxlan.device)
        self.device = Device(self.nl, settings, teller)
        self._teller = teller
        self._switches = Switches(self.nl, teller)
        self._rules = Rules(settings.data_dir, teller)
        self._entries = Entries(self.nl, self.mirror, teller)
        self._desired: Desired | None = None
        self._old_due = True
        self._down: set[str] = set()
        self._heard = 0
        self.events.ignore(self.nl.port)

    def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self.events.close()
        self.nl.close()

    def adopt(self) -> Iterable[Entry]:
        """What an earlier daemon left; it stays until a plan says otherwise. Raises KernelError."""
        self.mirror.reset(read_entries(self.nl, self.device.name), "")
        return self.mirror.have.values()

    def aim(self, desired: Desired) -> None:
        """Take a plan."""
        if self._desired is None and desired.device is None:
            self._entries.look("")  # what is on a device of earlier settings goes with it
        self._old_due = self._old_due or desired.device is None
        self._desired = desired
        self.mirror.aim({**desired.peers, desired.me.name: desired.own_routes})
        self.device.aim(desired)
        self._rules.aim(desired.cluster)
        self._switches.aim(desired)

    def note(self, event: Event) -> None:
        """Take an event in."""
        noun = event.noun
        if event.kind == "lost":
            self.look_at_everything("found when events were lost")
        elif event.kind == "netconf":
            self._switches.due = True
        elif isinstance(noun, RuleChange):
            cause = tell_change("changed", event)
            self._rules.note(noun, deleted=event.deleted, port=event.port, cause=cause)
        elif isinstance(noun, Link):
            self._rules.note_link(noun.index, deleted=event.deleted)
            how = tell_change("removed" if event.deleted else "changed", event)
            self._note_link(noun, event.deleted, f"link {noun.name} was {how}")
        elif isinstance(noun, Address):
            if noun.link == self.device.name and not noun.address.is_link_local:
                self.device.note(tell_change("changed", event))
        elif self.mirror.is_merged(event):
            self._entries.look(tell_change("changed", event))
        else:
            self.mirror.note(event)

    def _note_link(self, link: Link, deleted: bool, cause: str) -> None:
        if link.name == self.device.name:
            self.device.note(cause)
        elif self._desired and link.name in (self._desired.uplink, "lo"):
            down = deleted or not link.up
            # IPv4 routes through a link that goes down vanish without a word
            # (net/ipv4/fib_frontend.c, fib_disable_ip).
            if down != (link.name in self._down):
                (self._down.add if down else self._down.discard)(link.name)
                self.device.note(cause)
                self._entries.look(cause)

    def look_at_everything(self, cause: str) -> None:
        """Compare all that there is, for one time."""
        self.device.note(cause)
        self._entries.look(cause)
        self._rules.look(cause)
        self._switches.due = True

    def tick(self) -> None:
        """Look at what no event tells: settings that change silently."""
        self._switches.due = True
        self._teller.forget()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is known that is not as planned."""
        due = self.device.due or self.device.fault or self._rules.is_due or self._switches.due
        return not due and not self.mirror.out_of_sync()

    def work(self) -> float | None:
        """Do what is due; in how many seconds more is (None: when something happens)."""
        if self._desired is None:
            return None
        steps = [self._mend_switches, self._mend_device, self._mend_paths]
        # What others removed comes back without waiting for the store, which rules need.
        steps.insert(2 if self._rules.is_planned else 3, self._rules.mend)
        waits = [self._attempt(step) for step in steps]
        return min((wait for wait in waits if wait is not None), default=None)

    def _attempt(self, step: Callable[[], float | None]) -> float | None:
        try:
            return step()
        except (KernelError, IpamError, OSError) as error:
            self._teller.fail(str(error))
            return RETRY

    def _mend_switches(self) -> float | None:
        lost = self.device.is_lost() or not self.device.index
        return self._switches.mend(self.device.name if lost else "")

    def _mend_device(self) -> float | None:
        wait, cause = self.device.mend()
        if self.device.index != self._heard:
            self._heard = self.device.index
            self.events.ignore(self.nl.port, self._heard)
        if cause is not None:
            self._entries.look(cause)
            self._switches.expect()
            self._mend_switches()
        return wait

    def _mend_paths(self) -> float | None:
        wait = None
        if not self.device.fault and not self.device.is_lost():
            wait = self._attempt(self._mend_entries)
        if not self.device.fault and self.device.is_lost():
            again = self.device.wait()
            return again if wait is None else min(wait, again)
        return wait

    def _mend_entries(self) -> float | None:
        wait = self._entries.mend(self.device.name if self.device.index else None)
        if self._old_due and self._desired and self._desired.device is None:
            # Last: its routes have been replaced.
            self.device.remove_old(self._desired)
            self._old_due = False
        return wait
