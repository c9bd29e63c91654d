"""The VXLAN device of the plan, kept as it should be; devices of earlier settings go."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.routing.backends.vxlan import DEVICE_ALIAS
from daemon.routing.reporter import Teller
from kernel.describe import describe, state_of
from kernel.diff import Change, Noun
from kernel.errors import KernelError
from kernel.ethtool import ensure_offload, offload_trouble
from kernel.model import Link
from kernel.netlink.socket import Netlink
from kernel.read import read_links
from kernel.vxlan import Rivalry, ensure_vxlan, remove_vxlan

_SET_OTHER = ": remove it, or set `vxlan.vni` or `vxlan.port` in podwired.yaml on all nodes"


class Device:
    """index: of the link, 0 while there is none; fault: why it is not as planned."""

    def __init__(self, nl: Netlink, settings: Settings, teller: Teller) -> None:
        self.name = settings.vxlan.device
        self.index, self.fault, self.due = 0, "", False
        self._mode = settings.vxlan.checksum_offload
        self._nl, self._teller = nl, teller
        self._desired: Desired | None = None
        self._cause = ""
        self._trouble = ""

    def aim(self, desired: Desired) -> None:
        """Take a plan."""
        old, self._desired = self._desired, desired
        self.due = self.due or old is None or _frame(old) != _frame(desired)

    def note(self, cause: str) -> None:
        """Something may be wrong with it, through the cause."""
        self.due, self._cause = True, cause

    def is_lost(self) -> bool:
        """Whether the link is gone, or another one by now, before its event was read."""
        if not self.index:
            return False
        try:
            lost = socket.if_nametoindex(self.name) != self.index
        except OSError:
            lost = True
        if lost and not self.due:
            self.note(f"link {self.name} was removed")
        return lost

    def wait(self) -> float:
        """Seconds until it may be put right."""
        return self._teller.wait_for(("link", self.name))

    def mend(self) -> tuple[float | None, str | None]:
        """Put it right: (seconds until it may be, cause of what was wrong and is right now).

        The cause is None where nothing was wrong, and empty where the plan changed. What leads
        through the device must be looked at where it is not None. Raises KernelError.
        """
        desired = self._desired
        if not self.due or desired is None:
            return None, None
        wait = self.wait()
        if wait > 0:
            return wait, None
        try:
            changes, offload = self._ensure(desired)
        except Rivalry as error:
            hint = f"{error.hint}{_SET_OTHER}"
            told = KernelError(error.operation, error.target, error.errno, hint)
            self.fault = str(told)
            raise told from error
        except KernelError as error:
            self.fault = str(error)
            if self._cause:
                self._teller.counts.find(("link", self.name), f"link {self.name}")
            raise
        cause, self._cause = self._cause, ""
        self.due, self.fault = False, ""
        if not changes and not offload:
            self._teller.counts.lapse(("link", self.name))
            return None, None
        self._tell(desired, changes, offload, cause)
        return None, cause

    def _ensure(self, desired: Desired) -> tuple[Sequence[Change[Noun]], str]:
        """What was not as desired: (of the device, of its checksum offload)."""
        if desired.device is None:
            self.index = 0
            return (), ""
        # Others first: two devices cannot have one tunnel.
        links = read_links(self._nl)
        self._remove_others(desired, links)
        done = ensure_vxlan(self._nl, desired.device, desired.device_addresses)
        self.index = done.link.index
        return done.changes, self._ensure_offload(desired, links)

    def _ensure_offload(self, desired: Desired, links: Iterable[Link]) -> str:
        below = {desired.uplink, *(k.name for k in links if _is_port_of(k, desired.uplink))}
        trouble = offload_trouble(sorted(below)) if self._mode == "auto" else ""
        if trouble and trouble != self._trouble:
            self._teller.log.warning(f"checksum offload of {self.name} is off: {trouble}")
        self._trouble = trouble
        was = ensure_offload(self.name, self._mode, trouble)
        return "" if was is None else f"its checksum offload was {'on' if was else 'off'}"

    def _tell(
        self, desired: Desired, changes: Sequence[Change[Noun]], offload: str, cause: str
    ) -> None:
        missing = any(isinstance(c.desired, Link) and c.observed is None for c in changes)
        before = "; ".join(filter(None, (*map(describe, changes), offload)))
        name, texts = f"link {self.name}", ("" if missing else before, state_of(desired.device))
        if cause:
            self._teller.put_right(("link", self.name), "restored", name, cause, *texts)
        else:
            self._teller.write("added" if missing else "changed", name, "the plan", *texts)

    def remove_old(self, desired: Desired) -> None:
        """Remove podwire's devices that the plan does not name. Raises KernelError."""
        self._remove_others(desired, read_links(self._nl))

    def _remove_others(self, desired: Desired, links: Iterable[Link]) -> None:
        wanted = desired.device.name if desired.device else ""
        for link in links:
            is_old = link.alias == DEVICE_ALIAS and link.name != wanted
            if is_old and remove_vxlan(self._nl, link.name):
                self._teller.write("removed", f"link {link.name}", "no plan names it")


def _frame(desired: Desired) -> tuple[object, ...]:
    """What the device rests on."""
    return desired.device, desired.device_addresses, desired.uplink


def _is_port_of(link: Link, uplink: str) -> bool:
    return link.port is not None and link.port.bridge == uplink
