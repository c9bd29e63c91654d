"""Real packets of pods: whether other nodes and its DNS servers answer it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from ctl.attachments import Attachment
from ctl.dns.codec import PORT
from ctl.dns.lookup import look_up
from ctl.dns.resolv_conf import parse, read_of
from ctl.pod_namespace import find_processes, open_pod_namespace
from ctl.policy.ends import Egress
from daemon.config.schema import Settings
from daemon.options import Unusable
from kernel.echo import Echo, ask, echo
from kernel.errors import KernelError
from kernel.model import IPAddress, Route
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace, inside
from kernel.packets import ICMP, ICMP_OF, UDP
from kernel.read import read_link

if TYPE_CHECKING:
    from ctl.planning import Planned
    from ctl.trace.hop import Verdict

_SECONDS = 0.5
"""What an answer to an echo request may take."""
_DNS_SECONDS = 1.0
_TRACE_SECONDS = 0.5
_PEERS_MAX = 50
_TARGETS = 4
"""Addresses of nodes that each pod asks; the next pod asks the next ones."""
_NAME = "podwire.invalid."
"""No such name exists (RFC 6761): any answer will do."""


@dataclass(frozen=True, slots=True)
class PodProbe:
    """What a pod gets no answer from. title, name: the pod's, empty where there is none.

    peers: with the name of each; only those that answer the node itself. servers: DNS servers that
    are mute. trace: the verdict of `podwirectl trace` on packets to the first peer, None where that
    gets an answer by now. mtu_above: of the pod's link and the node's end, where the former is
    larger. alike: how many more pods get no answer from a node.
    """

    title: str = ""
    peers: tuple[tuple[str, IPAddress], ...] = ()
    servers: tuple[str, ...] = ()
    trace: Verdict | None = None
    mtu_above: tuple[int, int] | None = None
    alike: int = 0
    name: str = ""


NO_PROBE = PodProbe()


def not_probed(attachment: Attachment) -> PodProbe:
    """Of a pod that packets could not be sent of."""
    return PodProbe(attachment.title, name=attachment.name)


class Prober:
    """Sends packets of this node's pods to the nodes of a plan.

    What network policies forbid is not sent: silence would be what they ask for.
    """

    def __init__(self, nl: Netlink, planned: Planned | None, settings: Settings | None) -> None:
        self._nl, self._planned = nl, planned
        self._desired = planned.desired if planned else None
        self._egress = Egress(settings)

    def probe_any(self, attached: Iterable[Attachment], unreachable: Container[str]) -> PodProbe:
        """Probe the first pod that gets no answer; where all get one, the first of all.

        A second for each kind of packet at most. unreachable: nodes that need not be asked.
        Raises OSError.
        """
        pods = [each for each in attached if self._is_routed(each)]
        peers = [a for a, name in self._peers().items() if name not in unreachable]
        silent = [p for p in self._find_silent(pods, peers) if self._is_there(p)] if peers else []
        chosen = next(iter((*silent, *pods)), None)
        found = self._probe_one(chosen) if chosen else NO_PROBE
        return replace(found, alike=max(0, len(silent) - 1))

    def probe_pod(self, attached: Sequence[Attachment]) -> PodProbe:
        """Probe one pod, by that of its attachments which other nodes answer. Raises OSError."""
        return self._probe_one(next(filter(self._is_routed, attached), attached[0]))

    def _probe_one(self, attachment: Attachment) -> PodProbe:
        found = self._probe(attachment)
        return found if self._is_there(attachment) else not_probed(attachment)

    def _is_there(self, each: Attachment) -> bool:
        """Whether the pod was not deleted, or made anew, meanwhile: then silence means nothing."""
        link = read_link(self._nl, each.host)
        return link is not None and each.end is not None and link.index == each.end.link.index

    def _probe(self, attachment: Attachment) -> PodProbe:
        try:
            namespace = open_pod_namespace(self._nl, attachment)
        except Unusable:  # its link is gone, or it is not seen from here
            return not_probed(attachment)
        known = self._peers() if self._is_routed(attachment) else {}
        peers = {a: n for a, n in known.items() if self._may(attachment, a)}
        with namespace:
            with inside(namespace):
                answered = echo(peers, _SECONDS)
            silent = sorted(set(peers) - answered, key=str)
            # A node that answers nobody's echo requests says nothing about the path.
            answering = echo(silent, _SECONDS) if silent else set()
            servers = _find_mute(
                namespace, lambda a: self._egress.allows(attachment.host, a, UDP, PORT)
            )
            with inside(namespace), Netlink() as inner:
                link = read_link(inner, attachment.owner.ifname)
        lost = tuple((peers[address], address) for address in silent if address in answering)
        ends = link.mtu if link else None, attachment.end.link.mtu if attachment.end else None
        return PodProbe(
            attachment.title,
            lost,
            servers,
            _locate(self._nl, attachment, lost[0][1], self._planned) if lost else None,
            mtu_above=(ends[0], ends[1]) if ends[0] and ends[1] and ends[0] > ends[1] else None,
            name=attachment.name,
        )

    def _is_routed(self, each: Attachment) -> bool:
        """Whether other nodes have a route to it: another network's pods answer nobody there."""
        cidrs = self._desired.pod_cidrs if self._desired else ()
        is_ours = any(ip in cidr for ip in each.ips for cidr in cidrs)
        return is_ours and each.end is not None and not each.plugin

    def _may(self, attachment: Attachment, to: IPAddress) -> bool:
        has_family = any(ip.version == to.version for ip in attachment.ips)
        return has_family and self._egress.allows(attachment.host, to, ICMP_OF[to.version])

    def _peers(self) -> dict[IPAddress, str]:
        """The nodes' own addresses in the pod network."""
        found = {
            entry.dst.network_address: name
            for name, entries in (self._desired.peers if self._desired else {}).items()
            for entry in entries
            if isinstance(entry, Route)
        }
        return dict(list(found.items())[:_PEERS_MAX])

    def _find_silent(
        self, pods: Sequence[Attachment], peers: Sequence[IPAddress]
    ) -> list[Attachment]:
        """Pods whose requests to some of the peers are not answered, while the node's own are."""
        with ExitStack() as stack:
            asked: list[tuple[Attachment, Echo]] = []
            for number, pod in enumerate(pods):
                turn = number * _TARGETS % len(peers)
                allowed = (a for a in (*peers[turn:], *peers[:turn]) if self._may(pod, a))
                with (
                    suppress(Unusable, KernelError),
                    open_pod_namespace(self._nl, pod) as namespace,
                    inside(namespace),
                ):
                    asked.append((pod, stack.enter_context(Echo(islice(allowed, _TARGETS)))))
            # One packet may get lost.
            for _try in range(2):
                ask([e for _pod, e in asked if e.unanswered], _SECONDS / 2)
            missing = {a for _pod, e in asked for a in e.unanswered}
            known = echo(missing, _SECONDS) if missing else set()
            return [pod for pod, e in asked if e.unanswered & known]


def _locate(nl: Netlink, pod: Attachment, to: IPAddress, planned: Planned | None) -> Verdict | None:
    """Where packets of the pod to an address end; None where that is not found."""
    from ctl.trace.ends import End
    from ctl.trace.follow import Request, follow

    source, target = End(pod.title, pod.ips, pod), End(str(to), (to,))
    request = Request(source, target, ICMP, patience=_TRACE_SECONDS)
    with suppress(Unusable, KernelError, OSError):
        found = follow(nl, (pod,), planned, {}, request).verdict
        return None if found.reached else found
    return None


def _find_mute(namespace: Namespace, may: Callable[[IPAddress], bool]) -> tuple[str, ...]:
    found = read_of(find_processes(namespace))
    conf = parse(found[0]) if found else None
    if conf is None or not conf.servers or not all(map(may, conf.servers)):
        return ()
    with suppress(KernelError, OSError):
        lookup = look_up(namespace, _NAME, replace(conf, timeout=_DNS_SECONDS, attempts=1), ("A",))
        if all(sent.seconds is None for sent in lookup.sent):
            return tuple(dict.fromkeys(sent.server for sent in lookup.sent))
    return ()
