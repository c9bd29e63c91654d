"""What this node knows of policies and pods, and the end of a connection that a text names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from daemon.options import Unusable, default_files
from daemon.policy.compile import LocalPod, allows, compile_rules
from daemon.policy.local_pods import LocalPods, bridge_to_come, with_local
from daemon.policy.model import Facts, PodFacts
from daemon.policy.saved_facts import read_facts, saved_path
from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.socket import open_netlink
from kernel.nftables.policy_rules import PolicyRules
from kernel.paths import local_addresses

if TYPE_CHECKING:
    from daemon.config.schema import Settings


@dataclass(frozen=True, slots=True)
class Known:
    """The facts that the daemon saved, and the pods of this node as the kernel has them.

    bridges: of pods, that have no other ports. unknown: whether pods whose labels are not known are
    let through.
    """

    facts: Facts
    local: tuple[LocalPod, ...] = ()
    bridges: frozenset[str] = frozenset()
    unknown: bool = False

    def compile(self) -> PolicyRules:
        """The rules that the daemon makes of it."""
        return compile_rules(
            self.facts, self.local, unknown=self.unknown, bridges=self.bridges
        ).rules


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection. pod: None for an address that is no known pod's."""

    address: IPAddress
    pod: PodFacts | None = None

    def __str__(self) -> str:
        return f"{'/'.join(self.pod.key)} ({self.address})" if self.pod else str(self.address)


def read_known(settings: Settings | None) -> Known:
    """What the daemon with these settings (None: the defaults) saved, with this node's pods.

    Raises Unusable.
    """
    if settings and not settings.enforces_policies:
        off = "has no `policy.dir`" if settings.policy else "has `policy: false`"
        raise Unusable(f"policies are not enforced: the configuration {off}")
    path = saved_path(settings.data_dir if settings else default_files().data_dir)
    # Of files alone a pod is known by its name; the API has to describe it.
    is_named = bool(settings and settings.policy and settings.policy.dir)
    try:
        facts = read_facts(path)
    except FileNotFoundError as error:
        why = "podwired writes it once it knows a policy, and where policies are enforced"
        raise Unusable(f"there is no {path}: {why}") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be used: {error}") from error
    pods = LocalPods(bridge_to_come(settings) if settings else "")
    try:
        pods.read()
    except KernelError as error:
        raise Unusable(str(error)) from error
    local = tuple(pods.pods(facts))
    is_open = bool(settings and settings.policy and settings.policy.unknown_pods == "open")
    facts = with_local(facts, local, names_pods=is_named)
    return Known(facts, local, pods.bridges(), unknown=is_open)


def concerns_node(known: Known, own: End, peer: End) -> bool:
    """Whether one end is a pod of this node, and the other the node itself. Raises KernelError."""
    if own.pod is None or all(pod.key != own.pod.key for pod in known.local):
        return False
    with open_netlink() as nl:
        return peer.address in local_addresses(nl, [peer.address])


class Egress:
    """What policies let this node's pods send. Nothing is limited where no policy is known."""

    def __init__(self, settings: Settings | None) -> None:
        self._pods: dict[str, LocalPod] = {}
        self._rules: PolicyRules | None = None
        with suppress(Unusable):
            known = read_known(settings)
            if known.facts.policies:
                self._pods = {pod.link: pod for pod in known.local}
                self._rules = known.compile()

    def allows(self, link: str, target: IPAddress, protocol: int, port: int = 0) -> bool:
        """Whether a pod may send to an address. link: the node's end of the pod's pair."""
        if self._rules is None:
            return True
        pod = self._pods.get(link, LocalPod(link, None))
        same = (a for a in pod.places if isinstance(a, str) or a.version == target.version)
        return allows(self._rules, "egress", next(same, link), target, protocol, port)


def find_pod(facts: Facts, text: str) -> PodFacts:
    """The pod of a name, or of a namespace and a name. Raises Unusable."""
    namespace, _separator, name = text.rpartition("/")
    found = [
        pod for pod in facts.pods.values() if pod.name == name and namespace in ("", pod.namespace)
    ]
    if not found:
        raise Unusable(f"no pod {text!r} is known on this node: `podwirectl pods` lists its pods")
    if len(found) > 1:
        names = ", ".join(sorted("/".join(pod.key) for pod in found)[:5])
        raise Unusable(f"{text!r} are several pods: {names}")
    return found[0]


def find_end(facts: Facts, text: str, version: int = 0) -> End:
    """The end that a text names: an address or a pod, by its address of a version (0: its first).

    Raises Unusable.
    """
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        pod = find_pod(facts, text)
        found = [a for a in pod.addresses if version in (0, a.version)]
        if not found:
            family = f" of IPv{version}" if version else ""
            raise Unusable(f"no address{family} is known of pod {'/'.join(pod.key)}") from None
        return End(found[0], pod)
    owner = next((pod for pod in facts.pods.values() if address in pod.addresses), None)
    return End(address, owner)
