"""Read what the checks need: each area by itself, for what one lacks must not hide another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from ctl.address_usage import read_usages
from ctl.attachments import Attachment, Attachments, find_pod, read_attachments
from ctl.differences import Difference, compare_attachments, compare_node, settle_seconds
from ctl.doctor.checks.node import DEFAULT_FORWARDING
from ctl.doctor.observed import Daemon, Observed
from ctl.doctor.probing import NO_PROBE, PodProbe, Prober, not_probed
from ctl.planning import plan_node
from ctl.trace.neighbours import UnderlayPath, find_underlay_path
from daemon.journal import Record, read
from daemon.model import Desired
from daemon.options import NodeFiles
from daemon.routing.capacity import count_neighbours
from daemon.routing.diversions import Diverted, find_diverted
from daemon.routing.foreign_filters import find_legacy_drops, find_nft_drops
from daemon.status import NoStatus, read_status
from ipam.errors import IpamError
from kernel.conntrack import StaleFlow, find_stale_flows
from kernel.errors import KernelError
from kernel.limits import Level, read_descriptors, read_disk, read_levels
from kernel.netlink.socket import Netlink
from kernel.read import read_links
from kernel.sysctl import read_sysctl

if TYPE_CHECKING:
    from ctl.planning import Planned
    from daemon.config.schema import Settings

T = TypeVar("T")
HISTORY = 24 * 3600.0
"""Seconds of the journal that say who did what is wrong now."""
_PEERS_MAX = 20  # in trouble, of which the path is looked at
_LIVE = ("net/ipv4/conf/all/rp_filter", DEFAULT_FORWARDING)


class Observer:
    """Reads one node: that of the calling thread's network namespace."""

    def __init__(self, settings: Settings | None, files: NodeFiles, pod: str = "") -> None:
        """pod: the one that is probed, as `ctl.attachments.find_pod` takes it; empty for any."""
        self._settings, self._files, self._pod = settings, files, pod
        self._unreadable: dict[str, Exception] = {}

    def read(self) -> Observed:
        """The node as it is now."""
        with ExitStack() as stack:
            nl = self._try("kernel", lambda: stack.enter_context(Netlink()), None)
            return self._read(nl) if nl else Observed(time.time(), unreadable=self._unreadable)

    def _read(self, nl: Netlink) -> Observed:
        settings, daemon = self._settings, self._read_daemon()
        planned = self._plan(nl)
        attached = self._try(
            "attachments", lambda: read_attachments(nl, self._files.data_dir), Attachments(())
        )
        desired = planned.desired if planned else None
        peers = _troubles_of(daemon)
        return Observed(
            time.time(),
            settings,
            planned,
            daemon,
            links=self._try("links", lambda: {k.name: k for k in read_links(nl)}, {}),
            sysctls=_read_sysctls(desired),
            differences=self._compare(nl, planned),
            drops=self._try("filters", lambda: _find_drops(settings, desired, attached.found), ()),
            diverted=self._try("paths", lambda: tuple(_find_diverted(nl, planned)), ()),
            usage=self._try("ranges", lambda: tuple(read_usages(self._files.data_dir)), ()),
            levels=tuple(_read_levels(daemon, desired)),
            disk=read_disk(self._files.data_dir),
            stale_flows=self._try("conntrack", lambda: _find_stale(planned, attached.found), ()),
            records=self._try("journal", self._read_records, ()),
            probe=self._try("pod", lambda: self._probe(nl, attached, planned, peers), NO_PROBE),
            underlay=self._try("underlay", lambda: _read_underlay(nl, desired, peers), {}),
            unreadable=self._unreadable,
            attached_since=_since(attached.found),
        )

    def _try(self, area: str, work: Callable[[], T], default: T) -> T:
        try:
            return work()
        except (KernelError, IpamError, OSError) as error:
            self._unreadable.setdefault(area, error)
            return default

    def read_probe(self) -> PodProbe:
        """What packets of pods show, without all else. Raises KernelError, OSError."""
        with Netlink() as nl:
            planned = plan_node(nl, self._settings) if self._settings else None
            attached = read_attachments(nl, self._files.data_dir)
            return self._probe(nl, attached, planned, _troubles_of(self._read_daemon()))

    def _probe(
        self, nl: Netlink, attached: Attachments, planned: Planned | None, peers: Sequence[str]
    ) -> PodProbe:
        prober = Prober(nl, planned, self._settings)
        if self._pod:
            found = find_pod(nl, attached, self._pod)
            return self._try("pod", lambda: prober.probe_pod(found), not_probed(found[0]))
        return prober.probe_any(attached.found, peers)

    def _read_daemon(self) -> Daemon:
        try:
            return Daemon(read_status(self._files.status))
        except (NoStatus, OSError) as error:
            return Daemon(why=str(error))

    def _compare(self, nl: Netlink, planned: Planned | None) -> tuple[Difference, ...]:
        """What is not as planned, and is not just being repaired by the daemon or by a call."""
        found = self._compare_once(nl, planned)
        if not found:
            return ()
        time.sleep(settle_seconds(found))
        again = self._plan(nl) or planned
        return tuple(each for each in self._compare_once(nl, again) if each in found)

    def _compare_once(self, nl: Netlink, planned: Planned | None) -> tuple[Difference, ...]:
        if self._settings and planned:
            compared = compare_node(nl, self._settings, planned.desired, planned.entries)
        else:
            compared = compare_attachments(nl, self._files.data_dir)
        for area, why in compared.faults.items():
            self._unreadable.setdefault(area, why)
        return compared.found

    def _plan(self, nl: Netlink) -> Planned | None:
        settings = self._settings
        return self._try("plan", lambda: plan_node(nl, settings), None) if settings else None

    def _read_records(self) -> tuple[Record, ...]:
        return tuple(read(self._files.journal, time.time() - HISTORY))


def _since(attached: Iterable[Attachment]) -> Mapping[str, float]:
    """Of each pod the time of the last ADD."""
    known = ((each.pod or each.owner.container_id, each.since) for each in attached)
    return dict(sorted((pod, since) for pod, since in known if since is not None))


def _troubles_of(daemon: Daemon) -> tuple[str, ...]:
    """The nodes that the daemon's own probes do not reach."""
    health = daemon.status.health if daemon.status else None
    return tuple(trouble.node for trouble in health.troubles) if health else ()


def _read_underlay(
    nl: Netlink, desired: Desired | None, peers: Sequence[str]
) -> Mapping[str, UnderlayPath]:
    """The paths to peers in trouble, by their names."""
    if desired is None:
        return {}
    found = {}
    for name in peers[:_PEERS_MAX]:
        node = desired.nodes.get(name)
        if to := node.address(desired.underlay.version) if node else None:
            device = desired.device.name if desired.device else ""
            found[name] = find_underlay_path(nl, to, desired.underlay, device)
    return found


def _find_drops(
    settings: Settings | None, desired: Desired | None, attached: Iterable[Attachment]
) -> tuple[str, ...]:
    if settings is None or desired is None:
        return ()
    mappings = [e for a in attached for e in a.record.whole.elements if e.data is not None]
    found = find_nft_drops(settings, desired, mappings)
    return (found | find_legacy_drops(settings, desired, mappings)).texts


def _read_levels(daemon: Daemon, desired: Desired | None) -> Iterator[Level]:
    yield from read_levels(count_neighbours(desired))
    published = daemon.published
    if published and published.running and (files := read_descriptors(published.pid)):
        yield files


def _find_stale(planned: Planned | None, attached: Iterable[Attachment]) -> tuple[StaleFlow, ...]:
    if planned is None or planned.desired is None:
        return ()
    alive = {address for each in attached for address in each.ips}
    alive |= {address.address.ip for address in planned.host.addresses}
    return tuple(find_stale_flows(planned.desired.pod_cidrs, alive))


def _find_diverted(nl: Netlink, planned: Planned | None) -> list[Diverted]:
    if planned is None or planned.desired is None:
        return []
    return find_diverted(nl, planned.desired, planned.host)


def _read_sysctls(desired: Desired | None) -> Mapping[str, str]:
    paths = [*_LIVE, *(s.path for s in desired.sysctls)] if desired else _LIVE
    found = ((path, read_sysctl(path)) for path in paths)
    return {path: value for path, value in found if value is not None}
