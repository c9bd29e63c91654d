"""Policies, namespaces and pods in; the kernel's rules for this node's pods out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from daemon.policy.intervals import TooLarge, add_boxes, disjoint_boxes, merge, merge_ranges
from daemon.policy.model import (
    EVERYBODY,
    PORT_MAX,
    Facts,
    IpBlock,
    Key,
    Peer,
    PodFacts,
    PodPeers,
    Policy,
    Ports,
    Rule,
)
from daemon.policy.selectors import Selector
from kernel.model import IPAddress
from kernel.nftables.policy_rules import (
    DIRECTIONS,
    PROTOCOLS,
    Box,
    Direction,
    Ends,
    Filter,
    Place,
    PolicyRules,
    Span,
    ends_of,
)


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod of this node. link: the node's end of its pair. key: None where it has no name.

    A pod without a name is none of Kubernetes': no policy selects it. is_bridged: whether its end
    is the port of a bridge. The filters of nftables see the bridge instead of its ports.
    """

    link: str
    key: Key | None
    addresses: tuple[IPAddress, ...] = ()
    is_bridged: bool = False

    @property
    def places(self) -> tuple[Place, ...]:
        """What the rules know it by."""
        return self.addresses if self.is_bridged else (self.link,)


@dataclass(frozen=True, slots=True)
class Compiled:
    """faults: policies that let nothing through, and why. closed: pods that are not known yet."""

    rules: PolicyRules
    faults: Mapping[str, str] = field(default_factory=dict)
    closed: tuple[Key, ...] = ()


class Selected(NamedTuple):
    """The policies that decide what a pod may do in a direction.

    monitors: they only report. Policies that are enforced leave those out of account.
    """

    policies: tuple[Policy, ...]
    monitors: bool


def select(
    facts: Facts, pod: PodFacts, direction: Direction, among: Iterable[Policy] | None = None
) -> Selected | None:
    """The policies that limit a pod in a direction; None where it is not limited.

    among: of these policies, None for all.
    """
    found = [
        policy
        for policy in (facts.policies.values() if among is None else among)
        if policy.namespace == pod.namespace
        and direction in policy.rules
        and policy.pods.matches(pod.labels)
    ]
    enforced = tuple(policy for policy in found if not facts.monitors(policy))
    if enforced:
        return Selected(enforced, monitors=False)
    return Selected(tuple(found), monitors=True) if found else None


def compile_rules(
    facts: Facts,
    local: Iterable[LocalPod],
    *,
    unknown: bool = False,
    bridges: frozenset[str] = frozenset(),
) -> Compiled:
    """The rules for this node's pods. bridges: on which others than these are closed.

    unknown: whether a pod whose labels are not known is let through where policies are enforced.
    """
    compiler = _Compiler(facts)
    enforced = {p.namespace for p in facts.policies.values() if not facts.monitors(p)}
    known: set[Place] = set()
    closed: list[Key] = []
    names: dict[Direction, dict[Place, str]] = {direction: {} for direction in DIRECTIONS}
    for pod in local:
        found = facts.pods.get(pod.key) if pod.key else None
        if found is None and pod.key and pod.key[0] in enforced and not unknown:
            closed.append(pod.key)
            continue
        known.update(pod.places)
        for direction in DIRECTIONS:
            if found and (name := compiler.filter_of(found, direction)):
                names[direction] |= dict.fromkeys(pod.places, name)
    rules = PolicyRules(
        frozenset(known),
        names["ingress"],
        names["egress"],
        compiler.filters,
        bridges,
        closes=bool(enforced),
    )
    return Compiled(rules, compiler.faults, tuple(closed))


class _Compiler:
    """What the pods of one compilation share."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.filters: dict[str, Filter] = {}
        self.faults = {str(p): p.fault for p in facts.policies.values() if p.fault}
        self._selecting: dict[tuple[str, tuple[str, str] | None], list[Policy]] = defaultdict(list)
        for policy in facts.policies.values():
            self._selecting[policy.namespace, policy.pods.required].append(policy)
        self._pods: dict[str, list[PodFacts]] = defaultdict(list)
        self._labelled: dict[str, dict[tuple[str, str], list[PodFacts]]] = {}
        for pod in facts.pods.values():
            self._pods[pod.namespace].append(pod)
        self._peers: dict[tuple[str, PodPeers], list[PodFacts]] = {}
        self._hosts: dict[tuple[str, Peer], frozenset[IPAddress]] = {}

    def filter_of(self, pod: PodFacts, direction: Direction) -> str:
        """The name of a pod's filter, which is made where it is the first; empty for none."""
        labels: list[tuple[str, str] | None] = [None, *pod.labels.items()]
        found = [p for label in labels for p in self._selecting.get((pod.namespace, label), ())]
        selected = select(self._facts, pod, direction, found)
        if selected is None:
            return ""
        policies = sorted(selected.policies, key=lambda policy: policy.key)
        named = _named(policies, pod) if direction == "ingress" else {}
        name = " ".join(
            [
                direction,
                "monitored" if selected.monitors else "enforced",
                *map(str, policies),
                *(f"{protocol}/{text}={number}" for (protocol, text), number in named.items()),
            ]
        )
        if name not in self.filters:
            self.filters[name] = self._make(policies, direction, named, selected.monitors)
        return name

    def _make(
        self,
        policies: Sequence[Policy],
        direction: Direction,
        named: Mapping[tuple[int, str], int],
        monitors: bool,
    ) -> Filter:
        rules = [(policy, rule) for policy in policies for rule in policy.rules[direction]]
        if any(not rule.peers and not rule.ports for _policy, rule in rules):
            return Filter(direction, everything=True, monitors=monitors)
        hosts: list[frozenset[IPAddress]] = []
        ranges: list[Ends] = []
        spans: list[Span] = []
        boxes: set[Box] = set()
        try:
            for policy, rule in rules:
                if not rule.ports:
                    hosts += (self._addresses(policy.namespace, peer) for peer in rule.peers)
                    ranges += _blocks(rule)
                    continue
                if not rule.peers:
                    spans += _spans_of(rule, named)
                add_boxes(boxes, self._boxes(policy.namespace, rule, direction, named))
            merged, disjoint = merge_ranges(ranges), disjoint_boxes(boxes)
        except TooLarge as error:
            self.faults |= {str(policy): f"its rules are too many: {error}" for policy in policies}
            return Filter(direction, monitors=monitors)
        return Filter(
            direction,
            frozenset().union(*hosts),
            merged,
            merge(spans),
            disjoint,
            monitors=monitors,
        )

    def _boxes(
        self,
        namespace: str,
        rule: Rule,
        direction: Direction,
        named: Mapping[tuple[int, str], int],
    ) -> Iterator[Box]:
        """What a rule with ports lets through at some addresses alone."""
        spans = merge(_spans_of(rule, named))
        yield from (Box(ends, s) for ends in _blocks(rule) for s in spans)
        # Where names matter each peer has its own numbers: those of its containers.
        names = [p for p in rule.ports if p.name] if direction == "egress" else []
        if rule.peers or names:
            for pod in self._pods_of(namespace, rule):
                own = [s for ports in names for s in _spans(ports, pod.ports)]
                more = [*spans, *own] if rule.peers else own
                yield from (Box(ends_of(a), s) for a in pod.addresses for s in more)

    def _pods_of(self, namespace: str, rule: Rule) -> Iterator[PodFacts]:
        """The pods that a rule names as peers; all where it names none."""
        for peer in rule.peers or (EVERYBODY,):
            if isinstance(peer, PodPeers):
                yield from self._resolve(namespace, peer)

    def _addresses(self, namespace: str, peer: Peer) -> frozenset[IPAddress]:
        """The addresses of the pods that a peer stands for."""
        if isinstance(peer, IpBlock):
            return frozenset()
        key = (namespace, peer)
        if key not in self._hosts:
            pods = self._resolve(namespace, peer)
            self._hosts[key] = frozenset(a for pod in pods for a in pod.addresses)
        return self._hosts[key]

    def _resolve(self, namespace: str, peer: PodPeers) -> list[PodFacts]:
        key = (namespace if peer.namespaces is None else "", peer)
        if key not in self._peers:
            self._peers[key] = [
                pod
                for name in self._namespaces(namespace, peer)
                for pod in self._matching(name, peer.pods)
            ]
        return self._peers[key]

    def _matching(self, namespace: str, selector: Selector) -> Sequence[PodFacts]:
        """The pods of a namespace that a selector matches."""
        candidates = self._candidates(namespace, selector)
        # Most selectors have one label, or none: there may be thousands of candidates.
        if len(selector.requirements) == (selector.required is not None):
            return candidates
        return [pod for pod in candidates if selector.matches(pod.labels)]

    def _candidates(self, namespace: str, selector: Selector) -> Sequence[PodFacts]:
        """The pods of a namespace that a selector may match: by a label that must be, if any."""
        pods, label = self._pods.get(namespace, ()), selector.required
        if label is None:
            return pods
        if namespace not in self._labelled:
            found = self._labelled[namespace] = defaultdict(list)
            for pod in pods:
                for item in pod.labels.items():
                    found[item].append(pod)
        return self._labelled[namespace].get(label, ())

    def _namespaces(self, own: str, peer: PodPeers) -> Iterable[str]:
        if peer.namespaces is None:
            return (own,)
        selector = peer.namespaces
        return [n for n in self._pods if selector.matches(self._facts.labels_of(n))]


def ends_of_block(block: IpBlock) -> Iterator[Ends]:
    """The addresses of a block without those that it excepts."""
    network = block.network
    first, last = int(network.network_address), int(network.broadcast_address)
    excepted = sorted((int(e.network_address), int(e.broadcast_address)) for e in block.excepted)
    for low, high in excepted:
        if low > last:
            break
        if low > first:
            yield Ends(network.version, first, low - 1)
        first = max(first, high + 1)
    if first <= last:
        yield Ends(network.version, first, last)


def _blocks(rule: Rule) -> list[Ends]:
    return [e for peer in rule.peers if isinstance(peer, IpBlock) for e in ends_of_block(peer)]


def _spans(ports: Ports, named: Mapping[tuple[int, str], int]) -> Iterator[Span]:
    """The numbers of ports; none for a name that is not among those given."""
    if not ports.name:
        yield Span(ports.protocol, ports.first, ports.last)
    elif number := named.get((ports.protocol, ports.name)):
        yield Span(ports.protocol, number, number)


def _spans_of(rule: Rule, named: Mapping[tuple[int, str], int]) -> list[Span]:
    return [span for ports in rule.ports for span in _spans(ports, named)]


def _named(policies: Iterable[Policy], pod: PodFacts) -> dict[tuple[int, str], int]:
    """The pod's numbers of the ports that policies name: they are part of what its filter is."""
    keys = {
        (ports.protocol, ports.name)
        for policy in policies
        for rule in policy.rules["ingress"]
        for ports in rule.ports
        if ports.name
    }
    return {key: pod.ports[key] for key in sorted(keys) if key in pod.ports}


def allows(
    rules: PolicyRules,
    direction: Direction,
    place: Place,
    peer: IPAddress,
    protocol: int,
    port: int,
) -> bool:
    """Whether rules let a connection of a pod through, as the kernel decides it.

    protocol: its number; those without ports are let through by rules for all ports alone.
    """
    if place not in rules.known:
        return not rules.closes
    found = rules.filter_of(direction, place)
    ported = port if protocol in PROTOCOLS else PORT_MAX + 1
    return found is None or found.allows(peer, protocol, ported)
