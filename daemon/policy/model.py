"""NetworkPolicies, namespaces and pods as far as policy needs them, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from daemon.model import SourceActivity
from daemon.policy.selectors import Labels, Selector
from kernel.model import IPAddress, IPNetwork
from kernel.nftables.policy_rules import PROTOCOLS, Direction

NAME_LABEL = "kubernetes.io/metadata.name"
"""Label that every namespace has, with its name."""
PORT_MAX = 65535
_ALL = Selector()

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class IpBlock:
    """Addresses of a prefix, but for some (ipBlock)."""

    network: IPNetwork
    excepted: tuple[IPNetwork, ...] = ()

    def __str__(self) -> str:
        but = f" except {', '.join(map(str, self.excepted))}" if self.excepted else ""
        return f"{self.network}{but}"


@dataclass(frozen=True, slots=True)
class PodPeers:
    """Pods by their labels, in namespaces by theirs. namespaces: None for the policy's own."""

    namespaces: Selector | None = None
    pods: Selector = _ALL

    def __str__(self) -> str:
        where = "" if self.namespaces is None else f" of namespaces {self.namespaces}"
        return f"pods {self.pods}{where}"


EVERYBODY = PodPeers(namespaces=_ALL)
"""All pods of the cluster."""
Peer = IpBlock | PodPeers


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a protocol, by its number. name: of the pod's container port, where it is named."""

    protocol: int
    first: int = 0
    last: int = PORT_MAX
    name: str = ""

    def __str__(self) -> str:
        protocol = PROTOCOLS[self.protocol]
        if self.name:
            return f"{protocol}/{self.name}"
        if (self.first, self.last) == (0, PORT_MAX):
            return protocol
        return f"{protocol}/{self.first}" + f"-{self.last}" * (self.last > self.first)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is let through: these peers at these ports. Empty: any."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy. rules: by direction that it limits; other directions it does not concern.

    monitors: it drops nothing, and reports what it would. fault: why it lets nothing through.
    """

    namespace: str
    name: str
    pods: Selector = _ALL
    rules: Mapping[Direction, tuple[Rule, ...]] = field(default_factory=dict)
    monitors: bool = False
    fault: str = ""
    spec: str = "{}"
    """As the API has it, in JSON, which takes a tenth of the memory of what it describes."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A namespace. monitors: its policies drop nothing, and report what they would."""

    name: str
    labels: Labels = field(default_factory=dict)
    monitors: bool = False


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod with addresses of its own.

    ports: numbers by protocol and name; one without a name has its number for it, which no name is.
    """

    namespace: str
    name: str
    labels: Labels = field(default_factory=dict)
    addresses: tuple[IPAddress, ...] = ()
    ports: Mapping[tuple[int, str], int] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the cluster."""

    policies: Mapping[Key, Policy] = field(default_factory=dict)
    namespaces: Mapping[str, NamespaceFacts] = field(default_factory=dict)
    pods: Mapping[Key, PodFacts] = field(default_factory=dict)

    def labels_of(self, namespace: str) -> Labels:
        """A namespace's labels; its name is one of them, whatever else is known."""
        known = self.namespaces.get(namespace)
        return {NAME_LABEL: namespace, **(known.labels if known else {})}

    def monitors(self, policy: Policy) -> bool:
        """Whether a policy only reports."""
        known = self.namespaces.get(policy.namespace)
        return policy.monitors or bool(known and known.monitors)


class PolicySource(Protocol):
    """Follows policies, namespaces and pods. Its methods are called from one thread.

    names_pods: whether a pod that it does not describe is known by its name. activity: what it
    received of an API; of files nothing.
    """

    names_pods: bool
    activity: SourceActivity

    @property
    def fault(self) -> str:
        """Why its facts may be old; empty where they are not."""

    def start(self) -> None:
        """Begin to follow."""

    def fileno(self) -> int:
        """A descriptor that is readable while there may be new facts; negative: ask at times."""

    def take(self) -> Facts | None:
        """The facts, None where they did not change since."""

    def close(self) -> None:
        """End."""


@dataclass(frozen=True, slots=True)
class PolicyCounts:
    """What the metrics have of policies. selected: pods that any of them limits.

    closed: pods that are not known yet. updates: transactions since the start; seconds: how long
    the last one took, from what caused it to the kernel.
    """

    policies: int = 0
    faulty: int = 0
    selected: int = 0
    closed: int = 0
    updates: int = 0
    cut: int = 0
    seconds: float = 0.0
