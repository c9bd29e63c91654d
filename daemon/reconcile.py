"""The kernel brought to the plan, and kept there: what is due is done, and nothing else is read.

Order: settings, device, then FDB entries, neighbours, routes; removal the other way round. Every
step is repeatable, so whatever fails is due again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from daemon.backoff import STUBBORN, Backoff
from daemon.desired import Desired
from daemon.device import Device, tell_device
from daemon.journal import Action, Journal, Record
from daemon.log import Log
from daemon.mirror import Mirror, Repair
from daemon.records import records_of
from daemon.rules import Rules
from daemon.settings import Settings
from daemon.wording import name_author, name_entry
from ipam.errors import IpamError
from kernel.entries import Entry, Failure, Key, change_entries, key_of, read_entries
from kernel.errors import KernelError
from kernel.events import Event, Events
from kernel.forwarding import apply_node_settings
from kernel.model import RTPROT_PODWIRE_PEERS, Address, Link, Route, Sysctl
from kernel.netlink import Netlink
from kernel.read import read_links
from kernel.sysctl import read_sysctl

RETRY = 1.0
"""Seconds after which what failed is tried again."""
_LOST = "found when events were lost"


class Reconciler:
    """Acts on one network namespace: that of the thread that makes it.

    error: what went wrong in the last `work`, empty where nothing did.
    device_fault: why the device is not as planned.
    """

    def __init__(self, settings: Settings, journal: Journal, log: Log) -> None:
        self.error = self.device_fault = ""
        self.nl, self.events = Netlink(), Events()
        self._journal, self._log = journal, log
        self._name = settings.vxlan.device
        self._desired: Desired | None = None
        self._links: tuple[Link, ...] = ()
        self._device = Device(settings)
        self.mirror = Mirror(self._name)
        self._rules = Rules(settings.data_dir)
        self._backoff = Backoff()
        self._failed_until: dict[Key, float] = {}
        self._device_due = self._reset_due = False
        self._sysctls_due = self._sysctls_new = False
        self._device_cause = self._reset_cause = ""
        self._reset_at = 0.0
        self.events.ignore(self.nl.port)

    def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self.events.close()
        self.nl.close()

    def adopt(self) -> Iterable[Entry]:
        """What an earlier daemon left; it stays until a plan says otherwise. Raises KernelError."""
        self.mirror.reset(read_entries(self.nl, self._name), "")
        return self.mirror.have.values()

    def aim(self, desired: Desired, links: tuple[Link, ...]) -> None:
        """Take a plan, and the node's links that it was made with."""
        old, self._desired, self._links = self._desired, desired, links
        self.mirror.aim(desired.peers)
        self._rules.aim(desired.cluster)
        if old is None or _frame(old) != _frame(desired):
            self._device_due = True
        if old is None or old.sysctls != desired.sysctls:
            self._sysctls_due = self._sysctls_new = True
        if old is None and desired.device is None:
            self._reset_due = True  # what is on a device of earlier settings goes with it

    def note(self, event: Event) -> None:
        """Take an event in."""
        if event.kind == "lost":
            self.look_at_everything(_LOST)
        elif event.kind == "netconf":
            self._sysctls_due = True
        elif event.kind == "nft":
            self._rules.note(event, name_author(event.port))
        elif isinstance(event.noun, Link):
            self._note_link(event, event.noun)
        elif isinstance(event.noun, Address):
            if event.noun.link == self._name and not event.noun.address.is_link_local:
                self._note_device(f"changed by {name_author(event.port)}")
        else:
            self.mirror.note(event)

    def _note_link(self, event: Event, link: Link) -> None:
        verb = "removed" if event.deleted else "changed"
        cause = f"link {link.name} was {verb} by {name_author(event.port)}"
        known = next((k for k in self._links if k.name == link.name), None)
        if link.name == self._name:
            self._note_device(cause)
        elif self._desired and link.name == self._desired.uplink:
            self._note_device(cause)
            # IPv4 routes through a link that goes down vanish without a word (net/ipv4/
            # fib_semantics.c, fib_sync_down_dev).
            if known is None or known.up != link.up or event.deleted:
                self._note_loss(cause)

    def _note_device(self, cause: str) -> None:
        self._device_due, self._device_cause = True, self._device_cause or cause

    def _note_loss(self, cause: str) -> None:
        self._reset_due, self._reset_cause = True, self._reset_cause or cause
        self._failed_until.clear()

    def look_at_everything(self, cause: str) -> None:
        """Compare all that there is, for one time."""
        self._note_device(cause)
        self._note_loss(cause)
        self._sysctls_due = self._rules.due = True

    def tick(self) -> None:
        """Look at what no event tells: settings that change silently."""
        self._sysctls_due = True
        self._backoff.forget(time.monotonic())

    def work(self) -> float | None:
        """Do what is due; in how many seconds more is (None: when something happens)."""
        if self._desired is None:
            return None
        self.error = ""
        steps = (self._mend_sysctls, self._mend_device, self._mend_rules)
        waits = [self._attempt(step) for step in steps]
        if not self.device_fault:
            waits += [self._attempt(self._mend_entries), self._attempt(self._remove_old_devices)]
        return min((wait for wait in waits if wait is not None), default=None)

    def _attempt(self, step: Callable[[], float | None]) -> float | None:
        try:
            return step()
        except (KernelError, IpamError, OSError) as error:
            self._fail(str(error))
            return RETRY

    def _fail(self, text: str) -> None:
        self.error = self.error or text
        self._log.error(text)

    def _write(self, action: Action, name: str, cause: str, before: str, after: str) -> None:
        self._journal.write([Record(time.time(), action, name, cause, before, after)])
        told = f" by {cause}" if cause else ""
        self._log.info(f"{action} {name}{told}", before=before)

    def _mend_sysctls(self) -> float | None:
        if not self._sysctls_due or self._desired is None:
            return None
        device = self._desired.device
        # Those of the device come with it.
        wanted = [
            setting
            for setting in self._desired.sysctls
            if self._device.index or not device or f"/{device.name}/" not in setting.path
        ]
        waits = [self._mend_sysctl(setting) for setting in wanted]
        self._sysctls_due, self._sysctls_new = any(waits), False
        return max(waits, default=0.0) or None

    def _mend_sysctl(self, setting: Sysctl) -> float:
        """Set one setting right; in how many seconds, where it was set right just now."""
        before, key = read_sysctl(setting.path), ("sysctl", setting.path)
        if before == setting.value or (before is None and not setting.required):
            return 0.0
        wait = self._backoff.wait_for(key, time.monotonic())
        if wait > 0:
            return wait
        apply_node_settings(self.nl, [setting])
        action: Action = "changed" if self._sysctls_new else "restored"
        cause = "the plan" if self._sysctls_new else "changed by others"
        self._write(action, f"sysctl {setting.path}", cause, before or "", setting.value)
        if not self._sysctls_new:
            self._count(key, f"sysctl {setting.path}", cause)
        return 0.0

    def _mend_device(self) -> float | None:
        if not self._device_due or self._desired is None:
            return None
        wait = self._backoff.wait_for(("link", self._name), time.monotonic())
        if wait > 0:
            return wait
        try:
            if self._desired.device:
                # Before it is made: two devices cannot have one tunnel.
                self._links = tuple(read_links(self.nl))
                self._remove_old_devices()
            faults = self._device.ensure(self.nl, self._desired, self._links)
        except KernelError as error:
            self.device_fault = str(error)
            raise
        cause, self._device_cause = self._device_cause, ""
        self._device_due, self.device_fault = False, ""
        self.events.ignore(self.nl.port, self._device.index)
        if faults:
            self._tell_device(self._desired, faults, cause)
            self._note_loss(cause)
            self._sysctls_due = self._sysctls_new = True
            self._mend_sysctls()
        return None

    def _tell_device(self, desired: Desired, faults: Sequence[str], cause: str) -> None:
        missing = any(fault.endswith("is missing") for fault in faults)
        action: Action = "restored" if cause else "added" if missing else "changed"
        told = "; ".join(faults)
        self._write(action, f"link {self._name}", cause, told, tell_device(desired))
        if cause:
            self._count(("link", self._name), f"link {self._name}", cause)
        if self._device.warning:
            self._log.warning(f"checksum offload is off: {self._device.warning}")

    def _mend_rules(self) -> float | None:
        if not self._rules.due:
            return None
        key, cause = ("rules",), self._rules.cause
        wait = self._backoff.wait_for(key, time.monotonic())
        if wait > 0:
            return wait
        faults = self._rules.ensure()
        if faults:
            action: Action = "restored" if cause else "added"
            self._write(action, "nftables rules", cause, "; ".join(faults), self._rules.tell())
        if faults and cause:
            self._count(key, "nftables rules", cause)
        return None

    def _remove_old_devices(self) -> float | None:
        if self._desired is None:
            return None
        for name in self._device.remove_others(self.nl, self._desired, self._links):
            self._links = tuple(link for link in self._links if link.name != name)
            self._write("removed", f"link {name}", "no plan names it", "", "")
        return None

    def _mend_entries(self) -> float | None:
        if self._reset_at and time.monotonic() >= self._reset_at:
            self._reset_due, self._reset_at = True, 0.0
        if self._reset_due:
            have = read_entries(self.nl, self._name if self._device.index else None)
            self.mirror.reset(have, self._reset_cause)
            self._reset_due, self._reset_cause = False, ""
        began = time.monotonic()
        repairs, wait = self.mirror.repairs(lambda key: self._wait_for(key, began))
        if not repairs:
            return wait
        add = [r.want for r in repairs if r.want is not None]
        remove = [r.have for r in repairs if r.have is not None and _is_ours(r)]
        failures = change_entries(self.nl, add, remove)
        failed = {key_of(f.entry): f for f in failures}
        self.mirror.settle(repairs, failed)
        self._tell_entries([r for r in repairs if r.key not in failed], began)
        self._note_failures(failed)
        return 0.25 if wait is None and self.mirror.dirty else wait

    def _wait_for(self, key: Key, now: float) -> float:
        failed = self._failed_until.get(key)
        return max(self._backoff.wait_for(key, now), failed - now if failed else 0.0)

    def _note_failures(self, failed: dict[Key, Failure]) -> None:
        if not failed:
            return
        now = time.monotonic()
        self._failed_until |= dict.fromkeys(failed, now + RETRY)
        self._reset_at = now + RETRY  # the kernel has other things than we believe
        first = next(iter(failed.values()))
        error = KernelError("set", name_entry(first.entry), first.errno, first.hint)
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        self._fail(f"{error}{more}")

    def _tell_entries(self, done: Sequence[Repair], began: float) -> None:
        self._journal.write(records_of(done))
        for repair in done:
            self._failed_until.pop(repair.key, None)
        found = [r for r in done if r.cause]
        if found:
            entry = found[0].want or found[0].have
            name = name_entry(entry) if entry else ""
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            self._log.warning(f"{name} was {found[0].cause}: put right{more}")
            for repair in found:
                self._count(repair.key, name, repair.cause)
            self._backoff.note_effort(began, time.monotonic())
        if len(found) < len(done):
            self._log.info("routes changed", entries=len(done) - len(found))

    def _count(self, key: tuple[object, ...], name: str, cause: str) -> None:
        """Count a repair of what others changed; a quarrel is told once."""
        if self._backoff.note(key, time.monotonic()) == STUBBORN:
            text = f"{cause}, {STUBBORN} times now: podwire goes on putting it right"
            self._log.warning(f"{name}: {text}")
            self._journal.write([Record(time.time(), "found", name, text)])


def _frame(desired: Desired) -> tuple[object, ...]:
    """What the device rests on."""
    return desired.device, desired.device_addresses, desired.uplink


def _is_ours(repair: Repair) -> bool:
    """Whether what is there is podwire's, or in the place of what is podwire's."""
    have = repair.have
    foreign = isinstance(have, Route) and have.protocol != RTPROT_PODWIRE_PEERS
    return not foreign or repair.want is not None
