"""Settings below /proc/sys that packets need: which ones, and that they stay so.

One more to be watched is a line in `plan_sysctls`, and in `original_sysctls.NOTED` unless it goes
with podwire's device; of pods' links, in `cni_plugin/plan_parts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from daemon.model import Desired
from daemon.routing.counters import Drift
from daemon.routing.host_state import HostView
from daemon.routing.original_sysctls import Original, load_originals, note_originals
from daemon.routing.reporter import Reporter
from ipam.errors import IpamError
from kernel.describe import name_of
from kernel.diff import Change, compare
from kernel.errors import KernelError
from kernel.forwarding import IPV6_FORWARDING, apply_node_settings, settings_kept_for
from kernel.model import Sysctl
from kernel.netlink.socket import Netlink
from kernel.sysctl import explain_silence, read_sysctl


def plan_sysctls(host: HostView, device: str) -> Iterator[Sysctl]:
    """What lets packets through, for the families that this node has pods of.

    device: the name of the VXLAN device; empty where there is none.
    """
    if _has_pods(host, 4):
        yield Sysctl("net/ipv4/ip_forward", "1")
        # The kernel asks the link that a packet came in by (ip_route_input_slow).
        for link in filter(None, (host.uplink, device)):
            yield Sysctl(f"net/ipv4/conf/{link}/forwarding", "1")
    if _has_pods(host, 6):
        yield Sysctl(IPV6_FORWARDING, "1")
    if device:
        yield from _plan_device_sysctls(host, device)


def _has_pods(host: HostView, version: int) -> bool:
    return version in host.families and any(p.version == version for p in host.me.pod_cidrs)


def _plan_device_sysctls(host: HostView, device: str) -> Iterator[Sysctl]:
    # Loose: in a hybrid one node may see the other on-link and not the other way round.
    yield Sysctl(f"net/ipv4/conf/{device}/rp_filter", "2", required=False)
    if _has_pods(host, 6):
        yield Sysctl(f"net/ipv6/conf/{device}/disable_ipv6", "0")
    for setting in ("accept_ra", "accept_dad"):
        yield Sysctl(f"net/ipv6/conf/{device}/{setting}", "0", required=False)


def device_sysctls(desired: Desired) -> list[Sysctl]:
    """Those of the VXLAN device, which exist with it."""
    device = desired.device
    return [s for s in desired.sysctls if device and f"/{device.name}/" in s.path]


def plan_advertised(originals: Mapping[str, Original], uplink: str) -> Iterator[Sysctl]:
    """What lets links take router advertisements where podwire made the node a router.

    A router takes none by a link with accept_ra=1 (include/net/ipv6.h, ipv6_accept_ra), which one
    that comes or is set up later has again. Any other value is meant, as it is on a node that was
    a router before.
    """
    forwarding = originals.get(IPV6_FORWARDING)
    if forwarding and forwarding.before != forwarding.ours:
        kept = [path for path in originals if path.endswith("/accept_ra")]
        for path in dict.fromkeys([f"net/ipv6/conf/{uplink}/accept_ra", *kept]):
            yield Sysctl(path, "2", required=False)


class Sysctls:
    """Reconciles the settings. is_due: whether they must be compared.

    originals: the file that keeps what was before. routes_pods: pods get routed pairs, and ask the
    node for their gateway.
    """

    def __init__(
        self, nl: Netlink, originals: Path, reporter: Reporter, *, routes_pods: bool
    ) -> None:
        self._originals = originals
        self.is_due, self._routes_pods = False, routes_pods
        self._nl, self._reporter = nl, reporter
        self._planned: tuple[Sysctl, ...] = ()
        self._advertised: tuple[Sysctl, ...] = ()
        self._is_new = False
        self._unset: set[Sysctl] = set()
        self._drift = Drift[tuple[str, str]](reporter.counts)

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
        if self._is_new:
            self._note_originals(desired)
        settings = [*self._unadvertised(), *settings]
        self._drift.settle({_key(s.path) for s in settings}.__contains__)
        waits, errors = [0.0], list[KernelError]()
        for setting in settings:  # one that cannot be set keeps no other from being set
            try:
                waits.append(self._reconcile(setting))
            except KernelError as error:
                errors.append(error)
        needs_arp = self._routes_pods and any(p.version == 4 for p in desired.pod_cidrs)
        if needs_arp and (why := explain_silence()):
            errors.append(KernelError("attach pods", "", 0, why))
        if errors:
            raise errors[0]
        self.is_due, self._is_new = any(waits), False
        return max(waits) or None

    def _note_originals(self, desired: Desired) -> None:
        """Before the first of them is written: one may change another."""
        lasting = [s for s in desired.sysctls if s not in device_sysctls(desired)]
        kept = [each for s in lasting for each in settings_kept_for(self._nl, s)]
        try:
            note_originals(self._originals, [*lasting, *kept])
            originals = load_originals(self._originals)
            self._advertised = tuple(plan_advertised(originals, desired.uplink))
            note_originals(self._originals, self._unadvertised())
        except (OSError, IpamError) as error:
            what = "removing podwire will not set them back"
            self._reporter.log.warning(f"settings of the kernel are not noted: {error}: {what}")

    def _unadvertised(self) -> list[Sysctl]:
        """What is to be set of links that would take no router advertisements any more."""
        return [s for s in self._advertised if read_sysctl(s.path) == "1"]

    def _reconcile(self, setting: Sysctl) -> float:
        key, name, change = _key(setting.path), name_of(setting), _difference(setting)
        if change is None:
            self._reporter.counts.note_resolved(key)
            self._unset.discard(setting)
            return 0.0
        if not self._is_new:
            self._drift.note(key, name)
        wait = self._reporter.pause_before(key)
        if wait > 0:
            return wait
        apply_node_settings(self._nl, [setting])
        if _difference(setting) is None:
            self._report(change, name)
        elif setting not in self._unset:  # packets pass all the same
            self._unset.add(setting)
            self._reporter.log.warning(f"{name} cannot be set to {setting.value}")
        return 0.0

    def _report(self, change: Change[Sysctl], name: str) -> None:
        before = change.observed.value if change.observed else ""
        after = change.noun.value
        if self._is_new:
            self._reporter.report_change("changed", name, "the plan", before, after)
        else:
            key = _key(change.noun.path)
            self._reporter.report_repair(key, name, "changed by others", before, after)


def _key(path: str) -> tuple[str, str]:
    return "sysctl", path


def _difference(setting: Sysctl) -> Change[Sysctl] | None:
    value = read_sysctl(setting.path)
    return compare(setting, None if value is None else replace(setting, value=value))
