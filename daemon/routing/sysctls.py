"""Settings below /proc/sys that packets need, kept as desired."""

from __future__ import annotations

from daemon.model import Desired
from daemon.routing.reporter import Reporter
from kernel.describe import name_of
from kernel.diff import Change, compare
from kernel.forwarding import apply_node_settings
from kernel.model import Sysctl
from kernel.netlink.socket import Netlink
from kernel.sysctl import read_sysctl


class Sysctls:
    """Reconciles the settings. is_due: whether they must be compared."""

    def __init__(self, nl: Netlink, reporter: Reporter) -> None:
        self.is_due = False
        self._nl, self._reporter = nl, reporter
        self._planned: tuple[Sysctl, ...] = ()
        self._is_new = False

    def expect(self) -> None:
        """A link was just created: what differs at the next comparison is no external change."""
        self.is_due = self._is_new = True

    def reconcile(self, desired: Desired, absent: str) -> float | None:
        """Set what differs; seconds until what was just repaired may be repaired again.

        absent: a link that does not exist yet; its settings appear with it. Raises KernelError.
        """
        if desired.sysctls != self._planned:
            self._planned = desired.sysctls
            self.expect()
        if not self.is_due:
            return None
        settings = [s for s in desired.sysctls if not absent or f"/{absent}/" not in s.path]
        waits = [self._reconcile(setting) for setting in settings]
        self.is_due, self._is_new = any(waits), False
        return max(waits, default=0.0) or None

    def _reconcile(self, setting: Sysctl) -> float:
        key, name, value = ("sysctl", setting.path), name_of(setting), read_sysctl(setting.path)
        observed = None if value is None else Sysctl(setting.path, value, setting.required)
        change = compare(setting, observed)
        if change is None:
            self._reporter.counts.note_resolved(key)
            return 0.0
        if not self._is_new:
            self._reporter.counts.note_drift(key, name)
        wait = self._reporter.pause_before(key)
        if wait > 0:
            return wait
        apply_node_settings(self._nl, [setting])
        self._report(change, name)
        return 0.0

    def _report(self, change: Change[Sysctl], name: str) -> None:
        before = change.observed.value if change.observed else ""
        after = change.noun.value
        if self._is_new:
            self._reporter.report_change("changed", name, "the plan", before, after)
        else:
            key = ("sysctl", change.noun.path)
            self._reporter.report_repair(key, name, "changed by others", before, after)
