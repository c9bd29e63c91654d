"""Policy rules ahead of the main table that take packets of pods away from podwire's routes.

Entries that are as planned say nothing about them: the kernel is asked where such packets go.
Nothing is changed, for the rules are others'.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from daemon.journal import Record
from daemon.model import Desired, any_pod, overlap
from daemon.routing.host_state import HostState
from daemon.routing.reporter import Reporter
from kernel.errors import KernelError
from kernel.model import RTPROT_PODWIRE, IPAddress, Route
from kernel.netlink.socket import Netlink
from kernel.paths import Packet, PacketPath, find_paths

_NAME = "packets of pods"
_SHARE = 9
"""Lookups for thousands of nodes take at most a tenth of the time."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """A packet to pods, whose they are, and the link that it should leave by."""

    packet: Packet
    whose: str
    link: str


class Diversions:
    """Looks the packets up after each change of plan, host state or rules."""

    def __init__(self, nl: Netlink, reporter: Reporter) -> None:
        self._nl, self._reporter = nl, reporter
        self._is_due, self._not_before = False, 0.0

    def expect(self) -> None:
        """Something changed that may divert packets."""
        self._is_due = True

    def check(self, desired: Desired, host: HostState) -> None:
        """Report what is diverted, if that may be otherwise than before."""
        began = time.monotonic()
        if not self._is_due or began < self._not_before:
            return
        try:
            found = sorted(self._find(desired, host), key=_whose) if host.rules else []
        except KernelError as error:
            self._reporter.report_failure(str(error))
            return
        self._is_due = False
        self._not_before = began + (_SHARE + 1) * (time.monotonic() - began)
        self._report(_describe(found))

    def _find(self, desired: Desired, host: HostState) -> Iterator[tuple[_Expected, PacketPath]]:
        expected = list(_packets(desired, host))
        paths = find_paths(self._nl, [one.packet for one in expected])
        for one, path in zip(expected, paths, strict=True):
            if path.rule and path.link != one.link:
                yield one, path

    def _report(self, text: str) -> None:
        before = self._reporter.faults["paths"]
        self._reporter.report_fault("paths", text)
        if bool(text) != bool(before):
            cause = text or "no policy rule takes them from podwire's routes any more"
            self._reporter.record([Record(time.time(), "found", _NAME, cause)])
        if before and not text:
            self._reporter.log.info(f"{_NAME} go as planned again")


def _packets(desired: Desired, host: HostState) -> Iterator[_Expected]:
    """One packet to each prefix of other nodes, as a pod's, and one to a pod of this node."""
    pods = {version: _pod(desired, host, version) for version in (4, 6)}
    for name, entries in desired.peers.items():
        for route in (e for e in entries if isinstance(e, Route)):
            source, iif = pods[route.dst.version]
            to = any_pod(route.dst)
            yield _Expected(Packet(to, source, iif), f"{route.dst} of {name}", route.link)
            if iif and source:
                back = Packet(source, to, route.link)
                yield _Expected(back, "this node's pods", iif)


def _pod(desired: Desired, host: HostState, version: int) -> tuple[IPAddress | None, str]:
    """The address of a pod and the link that its packets come in by.

    Without a pod: the node's own among the pods' addresses, and no link.
    """
    own = [prefix for prefix in desired.pod_cidrs if prefix.version == version]
    for route in host.routes:
        if route.protocol == RTPROT_PODWIRE and any(overlap(route.dst, p) for p in own):
            return route.dst.network_address, route.link
    bridges = {link.port.bridge for link in host.links if link.port}
    for address in host.addresses:
        if address.link in bridges and any(address.address.ip in prefix for prefix in own):
            return any_pod(address.address.network), address.link
    return next((prefix.network_address for prefix in own), None), ""


def _whose(found: tuple[_Expected, PacketPath]) -> str:
    return found[0].whose


def _describe(found: list[tuple[_Expected, PacketPath]]) -> str:
    if not found:
        return ""
    one, path = found[0]
    more = f" (and to {len(found) - 1} more prefixes)" if len(found) > 1 else ""
    return f"packets of pods to {one.whose}{more} go {path}, not dev {one.link}"
