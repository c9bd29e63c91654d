"""Settings below /proc/sys that packets need, kept as the plan wants them."""

from __future__ import annotations

from daemon.model import Desired
from daemon.routing.reporter import Teller
from kernel.forwarding import apply_node_settings
from kernel.model import Sysctl
from kernel.netlink.socket import Netlink
from kernel.sysctl import read_sysctl


class Switches:
    """due: whether they must be looked at."""

    def __init__(self, nl: Netlink, teller: Teller) -> None:
        self.due = False
        self._nl, self._teller = nl, teller
        self._wanted: tuple[Sysctl, ...] = ()
        self._new = False

    def aim(self, desired: Desired) -> None:
        """Take a plan."""
        if desired.sysctls != self._wanted:
            self._wanted = desired.sysctls
            self.expect()

    def expect(self) -> None:
        """What differs at the next look is not others' work: a link was made just now."""
        self.due = self._new = True

    def mend(self, absent: str) -> float | None:
        """Put right what differs; seconds until what was put right just now may be again.

        absent: a link that is not there yet, whose settings come with it. Raises KernelError.
        """
        if not self.due:
            return None
        wanted = [s for s in self._wanted if not absent or f"/{absent}/" not in s.path]
        waits = [self._mend(setting) for setting in wanted]
        self.due, self._new = any(waits), False
        return max(waits, default=0.0) or None

    def _mend(self, setting: Sysctl) -> float:
        before, key = read_sysctl(setting.path), ("sysctl", setting.path)
        if before == setting.value or (before is None and not setting.required):
            self._teller.counts.lapse(key)
            return 0.0
        name = f"sysctl {setting.path}"
        if not self._new:
            self._teller.counts.find(key, name)
        wait = self._teller.wait_for(key)
        if wait > 0:
            return wait
        apply_node_settings(self._nl, [setting])
        if self._new:
            self._teller.write("changed", name, "the plan", before or "", setting.value)
        else:
            texts = before or "", setting.value
            self._teller.put_right(key, "restored", name, "changed by others", *texts)
        return 0.0
