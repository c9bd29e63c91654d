"""Connections that policies drop, or would drop: to log and journal, by the pods' names.

The kernel logs the first packets at a limited rate; of those that repeat the number is reported.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from daemon.journal import Journal, Record
from daemon.log import Log
from daemon.policy.compile import select
from daemon.policy.model import Facts, PodFacts
from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.nftables.policy import LOG_GROUP
from kernel.nftables.policy_rules import DIRECTIONS, PROTOCOLS, Direction
from kernel.packet_log import LoggedPacket, PacketLog

AGAIN = 60.0
"""Seconds after which a connection that is denied again is reported again, with the number."""
AT_ONCE = 10
"""Reports in so many seconds, at most."""
GAP = 10.0
KNOWN_MAX = 10_000
"""Different connections that are counted between two reports."""


class Denials:
    """Reads the kernel's log of packets, and reports what it means."""

    def __init__(
        self, journal: Journal, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal, self._log, self._clock = journal, log, clock
        self._packets: PacketLog | None = None
        self._counts: Counter[LoggedPacket] = Counter()
        self._reported: dict[LoggedPacket, float] = {}
        self._due = 0.0

    def open(self) -> Sequence[PacketLog]:
        """Subscribe; what is subscribed to: nothing where the kernel cannot, or another has it."""
        self.close()
        try:
            self._packets = PacketLog(LOG_GROUP)
        except KernelError as error:
            why = "another program reads it" if error.errno == errno.EBUSY else str(error)
            self._log.warning(f"denied connections are counted, and not logged: {why}")
            return ()
        return (self._packets,)

    def close(self) -> None:
        """End the subscription."""
        if self._packets:
            self._packets.close()
        self._packets = None

    def take(self, facts: Facts) -> None:
        """Take what was logged since, and report what is due."""
        self.note(self._packets.read() if self._packets else ())
        now = self._clock()
        if self._counts and now >= self._due:
            self._due = now + GAP
            self._report(facts, now)

    def note(self, packets: Iterable[LoggedPacket]) -> None:
        """Count packets; more than KNOWN_MAX different ones are not told apart."""
        for packet in packets:
            if packet in self._counts or len(self._counts) < KNOWN_MAX:
                self._counts[packet] += 1

    def _report(self, facts: Facts, now: float) -> None:
        self._reported = {p: at for p, at in self._reported.items() if now - at < AGAIN}
        due = [p for p in self._counts if p not in self._reported]
        records = [self._record(facts, packet) for packet in due[:AT_ONCE]]
        self._reported |= dict.fromkeys(due[:AT_ONCE], now)
        for packet in due[:AT_ONCE]:
            del self._counts[packet]
        if len(due) > AT_ONCE:
            more = f"connections, {len(due) - AT_ONCE} more"
            records.append(Record(time.time(), "refused", more, "network policies"))
            self._counts.clear()
        for record in records:
            self._log.info(f"refused {record.object}: {record.cause}")
        self._journal.write(records)

    def _record(self, facts: Facts, packet: LoggedPacket) -> Record:
        action, _space, direction = packet.prefix.partition(" ")
        source, target = (_owner(facts, a) for a in (packet.source, packet.destination))
        own = target if direction == "ingress" else source
        protocol = PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
        service = f"{protocol}/{packet.port}" if packet.port else protocol
        ends = [_name(pod, a) for pod, a in ((source, packet.source), (target, packet.destination))]
        times = self._counts[packet]
        count = f", {times} packets" if times > 1 else ""
        cause = f"{direction}: no rule of {_policies(facts, own, direction)} allows it{count}"
        if action == "monitored":
            cause += "; let through, as they only report"
        return Record(time.time(), "refused", f"connection {ends[0]} -> {ends[1]} {service}", cause)


def _owner(facts: Facts, address: IPAddress) -> PodFacts | None:
    return next((pod for pod in facts.pods.values() if address in pod.addresses), None)


def _name(pod: PodFacts | None, address: IPAddress) -> str:
    return f"{'/'.join(pod.key)} ({address})" if pod else str(address)


def _policies(facts: Facts, pod: PodFacts | None, word: str) -> str:
    direction: Direction | None = next((d for d in DIRECTIONS if d == word), None)
    selected = select(facts, pod, direction) if pod and direction else None
    return ", ".join(map(str, selected.policies[:3])) if selected else "its policies"
