"""Whether packets of pods go where podwire's routes lead, as the kernel itself answers.

Entries that are as planned say nothing about policy rules ahead of the main table, about routes of
others that are more specific, nor about what a link refuses to forward. So the kernel is asked for
packets as pods' are: with the link that they come in by. Nothing is changed: rules and settings
that divert packets are others'.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from daemon.journal import Record
from daemon.model import Desired, any_pod, overlap
from daemon.routing.host_state import HostState
from daemon.routing.reporter import Reporter
from kernel.errors import KernelError
from kernel.model import RTPROT_PODWIRE, IPAddress, Route
from kernel.netlink import routes
from kernel.netlink.monitor import Monitor
from kernel.netlink.socket import Netlink
from kernel.paths import Packet, PacketPath, find_paths
from kernel.read import read_link
from kernel.sysctl import read_sysctl

_NAME = "packets of pods"
_SHARE = 9
"""Lookups for thousands of nodes take at most a tenth of the time."""
AGAIN = 2.0
"""Seconds between lookups where nothing is known to have changed: some changes have no event."""
_CONFIRM = 0.3
"""Seconds until what was found is looked up again."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """A packet to pods, whose they are, and the link that it should leave by."""

    packet: Packet
    whose: str
    link: str


@dataclass(frozen=True, slots=True)
class Diverted:
    """Packets that do not go where they should. link: where they should; path: where they go.

    why: the setting behind it; empty for a route or a rule, which the path has.
    """

    packet: Packet
    whose: str
    link: str
    path: PacketPath
    why: str = ""

    def describe(self, others: int = 0) -> str:
        """What happens to them. others: how many more prefixes it happens to."""
        more = f" (and to {others} more prefixes)" if others else ""
        what = f"packets of pods to {self.whose}{more}"
        if self.why:
            return f"{what} are dropped: {self.why}"
        return f"{what} go {self.path}, not dev {self.link}"


class Diversions:
    """Looks the packets up after each change of plan, host state or rules, and now and then."""

    def __init__(self, nl: Netlink, events: Monitor, reporter: Reporter) -> None:
        self._nl, self._events, self._reporter = nl, events, reporter
        self._is_due, self._not_before, self._next = False, 0.0, 0.0
        self._is_suspected = False

    def expect(self) -> None:
        """Something changed that may divert packets."""
        self._is_due = True

    def check(self, desired: Desired, host: HostState) -> None:
        """Report what is diverted, if that may be otherwise than before."""
        began = time.monotonic()
        full = self._is_due or bool(self._reporter.faults["paths"])
        if began < (self._not_before if full else self._next):
            return
        try:
            found = find_diverted(self._nl, desired, host, sample=not full)
        except KernelError as error:
            self._reporter.report_failure(str(error))
            return
        spent = time.monotonic() - began
        self._next = self._not_before = max(began + AGAIN, began + (_SHARE + 1) * spent)
        # Pods come and go meanwhile: what is found is looked up once more before it is reported,
        # and again where something changed after the last repair: that may be repaired next.
        self._is_due = bool(found) and (not self._is_suspected or self._events.has_unread())
        self._is_suspected = bool(found)
        if self._is_due:
            self._not_before = began + max(_CONFIRM, (_SHARE + 1) * spent)
        else:
            self._report(describe_diverted(found))

    def _report(self, text: str) -> None:
        before = self._reporter.faults["paths"]
        self._reporter.report_fault("paths", text)
        if before and not text:
            self._reporter.log.info(f"{_NAME} go as planned again")
        if bool(text) != bool(before):
            cause = text or "they go as planned again"
            self._reporter.record([Record(time.time(), "found", _NAME, cause)])


def find_diverted(
    nl: Netlink, desired: Desired, host: HostState, *, sample: bool = False
) -> list[Diverted]:
    """What does not go where it should, in order of whose it is. Raises KernelError.

    sample: one peer of each family and link stands for all, as always where no policy rule is ahead
    of the main table, whose routes are compared with the plan anyway.
    """
    pods = {version: _find_pod(nl, desired, host, version) for version in (4, 6)}
    expected = list(_packets(desired, pods, sample=sample or not host.rules))
    paths = find_paths(nl, [one.packet for one in expected])
    # A link that packets should come in by and that is gone is a pod's, which ended meanwhile.
    wrong = [
        (one, path)
        for one, path in zip(expected, paths, strict=True)
        if path.link != one.link and path.errno != errno.ENODEV
    ]
    found = [Diverted(o.packet, o.whose, o.link, p, _explain(o, p)) for o, p in wrong]
    return sorted(found, key=lambda one: one.whose)


_Pod = tuple[IPAddress | None, str]
"""The address of a pod, and the link that its packets come in by."""


def _packets(desired: Desired, pods: Mapping[int, _Pod], *, sample: bool) -> Iterator[_Expected]:
    """A packet to each prefix of other nodes, as a pod's, and one back to a pod of this node."""
    seen = set[tuple[int, str]]()
    for name, entries in desired.peers.items():
        for route in (e for e in entries if isinstance(e, Route)):
            kind = route.dst.version, route.link
            if sample and kind in seen:
                continue
            seen.add(kind)
            source, iif = pods[route.dst.version]
            to = any_pod(route.dst)
            yield _Expected(Packet(to, source, iif), f"{route.dst} of {name}", route.link)
            if iif and source:
                back = Packet(source, to, route.link)
                yield _Expected(back, "this node's pods", iif)


def _find_pod(nl: Netlink, desired: Desired, host: HostState, version: int) -> _Pod:
    """A pod as it is now: the host state is older. Without one the node's own address, no link.

    Where the node has no such address (host-gw without probes) no source is asked for: packets
    from an address that is not its own have no route (net/ipv4/route.c, ip_route_output_key).
    """
    own = [prefix for prefix in desired.pod_cidrs if prefix.version == version]
    for message in nl.dump(routes.list_routes(version, RTPROT_PODWIRE)) if own else ():
        for index, route in routes.parse_route(message):
            link = read_link(nl, index=index)
            if link and any(overlap(route.dst, prefix) for prefix in own):
                return route.dst.network_address, link.name
    bridges = {link.port.bridge for link in host.links if link.port}
    for address in host.addresses:
        if address.link in bridges and any(address.address.ip in prefix for prefix in own):
            return any_pod(address.address.network), address.link
    mine = {address.address.ip for address in desired.device_addresses}
    mine |= {e.dst.network_address for e in desired.own_routes if isinstance(e, Route)}
    return next((p.network_address for p in own if p.network_address in mine), None), ""


def _explain(expected: _Expected, path: PacketPath) -> str:
    """The setting by which a link refuses the packet; empty where none does."""
    packet, iif = expected.packet, expected.packet.iif
    if not iif or path.link or path.rule or packet.to.version == 6:
        return ""
    # net/ipv4/route.c, ip_route_input_slow: no route where the link does not forward, an invalid
    # source where the way back to it leads elsewhere.
    if read_sysctl(f"net/ipv4/conf/{iif}/forwarding") == "0":
        return f"net.ipv4.conf.{iif}.forwarding is 0"
    if path.errno == errno.EINVAL:
        for place in (iif, "all"):
            if read_sysctl(f"net/ipv4/conf/{place}/rp_filter") == "1":
                return (
                    f"net.ipv4.conf.{place}.rp_filter is 1 (strict), and the route back to "
                    f"{packet.source} does not leave by {iif}: set it to 2"
                )
    return ""


def describe_diverted(found: list[Diverted]) -> str:
    """The first of them, and how many more there are; empty for none."""
    return found[0].describe(len(found) - 1) if found else ""
