"""The VXLAN device, kept as desired; devices of earlier settings are removed."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from daemon.config.schema import Settings
from daemon.journal import Action
from daemon.model import Desired
from daemon.routing.backends.vxlan import DEVICE_ALIAS
from daemon.routing.reporter import Reporter
from daemon.routing.sysctls import device_sysctls
from kernel.describe import describe, state_of
from kernel.diff import Change, Noun
from kernel.errors import KernelError
from kernel.ethtool import ensure_offload, offload_trouble
from kernel.model import Link
from kernel.netlink.socket import Netlink
from kernel.read import read_links
from kernel.vxlan import Rivalry, ensure_vxlan, remove_vxlan

_SET_OTHER = ": remove it, or set `vxlan.vni` or `vxlan.port` in podwired.yaml on all nodes"


class DeviceResult(NamedTuple):
    """What became of the device.

    wait: seconds until it may be repaired; None: nothing waits.
    cause: why it was changed, empty where the plan was; None: it was not changed. After a change
        the entries that lead through it must be read again.
    error: of an address that it cannot have; whatever needs none can use it.
    """

    wait: float | None = None
    cause: str | None = None
    error: KernelError | None = None


class VxlanDevice:
    """Reconciles the device. index: of the link, 0 while there is none.

    is_due: whether it must be compared.
    """

    def __init__(self, nl: Netlink, settings: Settings, reporter: Reporter) -> None:
        self.name = settings.vxlan.device
        self.index, self.is_due = 0, False
        self._key, self._title = ("link", self.name), f"link {self.name}"
        self._offload = settings.vxlan.checksum_offload
        self._nl, self._reporter = nl, reporter
        self._planned: tuple[object, ...] | None = None
        self._cause = ""
        self._offload_fault = ""
        self._refused: Sequence[KernelError] = ()

    def resync(self, cause: str) -> None:
        """Compare the device at the next opportunity, for what the cause may have changed."""
        self.is_due, self._cause = True, cause

    def is_lost(self) -> bool:
        """Whether the link is gone, or another one by now, before its event was read."""
        if not self.index:
            return False
        try:
            lost = socket.if_nametoindex(self.name) != self.index
        except OSError:
            lost = True
        if lost and not self.is_due:
            self.resync(f"{self._title} was removed")
        return lost

    def wait(self) -> float:
        """Seconds until it may be repaired."""
        return self._reporter.pause_before(self._key)

    def reconcile(self, desired: Desired) -> DeviceResult:
        """Compare the device if that is due, and repair it. Raises KernelError."""
        planned = (desired.device, desired.device_addresses, desired.uplink)
        if planned != self._planned:
            self._planned, self.is_due = planned, True
        if not self.is_due:
            return DeviceResult()
        wait = self.wait()
        if wait > 0:
            return DeviceResult(wait)
        try:
            changes, offloaded = self._apply(desired)
        except KernelError as error:
            raise self._failed(error) from error
        cause, self._cause = self._cause, ""
        refused = next(iter(self._refused), None)
        self.is_due = refused is not None
        if not changes and offloaded is None:
            self._reporter.counts.note_resolved(self._key)
            return DeviceResult(error=refused)
        self._report(desired, changes, offloaded, cause)
        return DeviceResult(cause=cause, error=refused)

    def _failed(self, error: KernelError) -> KernelError:
        if isinstance(error, Rivalry):
            hint = f"{error.hint}{_SET_OTHER}"
            error = KernelError(error.operation, error.target, error.errno, hint)
        elif self._cause:
            self._reporter.counts.note_drift(self._key, self._title)
        return error

    def _apply(self, desired: Desired) -> tuple[Sequence[Change[Noun]], bool | None]:
        """Make the device as desired; what differed, and its checksum offload if that did."""
        if desired.device is None:
            self.index, self._refused = 0, ()
            return (), None
        # Others first: two devices cannot have one tunnel.
        links = read_links(self._nl)
        self._remove_others(desired, links)
        settings = device_sysctls(desired)
        done = ensure_vxlan(self._nl, desired.device, desired.device_addresses, settings)
        self.index, self._refused = done.link.index, done.failed
        return done.changes, self._ensure_offload(desired, links)

    def _ensure_offload(self, desired: Desired, links: Iterable[Link]) -> bool | None:
        below = {desired.uplink, *(k.name for k in links if _is_port_of(k, desired.uplink))}
        fault = offload_trouble(sorted(below)) if self._offload == "auto" else ""
        if fault and fault != self._offload_fault:
            self._reporter.log.warning(f"checksum offload of {self.name} is off: {fault}")
        self._offload_fault = fault
        return ensure_offload(self.name, self._offload, fault)

    def _report(
        self,
        desired: Desired,
        changes: Sequence[Change[Noun]],
        offloaded: bool | None,
        cause: str,
    ) -> None:
        missing = any(isinstance(c.desired, Link) and c.observed is None for c in changes)
        texts = [*map(describe, changes)]
        if offloaded is not None:
            texts.append(f"its checksum offload was {'on' if offloaded else 'off'}")
        before = "; ".join(texts)
        states = "" if missing else before, state_of(desired.device)
        if cause:
            self._reporter.report_repair(self._key, self._title, cause, *states)
        else:
            action: Action = "added" if missing else "changed"
            self._reporter.report_change(action, self._title, "the plan", *states)

    def remove_old(self, desired: Desired) -> None:
        """Remove podwire's devices that the plan does not name. Raises KernelError."""
        self._remove_others(desired, read_links(self._nl))

    def _remove_others(self, desired: Desired, links: Iterable[Link]) -> None:
        planned = desired.device.name if desired.device else ""
        for link in links:
            is_old = link.alias == DEVICE_ALIAS and link.name != planned
            if is_old and remove_vxlan(self._nl, link.name):
                self._reporter.report_change("removed", f"link {link.name}", "no plan names it")


def _is_port_of(link: Link, uplink: str) -> bool:
    return link.port is not None and link.port.bridge == uplink
