"""This node's pods as policies know them, by the marks on the node's ends of their pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cni_plugin.config import DEFAULT_BRIDGE
from cni_plugin.names import (
    ALIAS_MAX,
    Mark,
    is_host_link_name,
    is_marked,
    link_local,
    parse_alias,
    pod_mac,
)
from daemon.policy.compile import LocalPod
from daemon.policy.model import Facts, Key, PodFacts
from kernel.model import HOST_LINK_PREFIX, IPAddress, Link
from kernel.netlink.links import list_links, parse_link
from kernel.netlink.socket import open_netlink

if TYPE_CHECKING:
    from daemon.config.schema import Settings

NAME_LABEL = "podwire.dev/pod-name"
"""The label of a pod that is known by its name alone."""


class _End(NamedTuple):
    """The node's end of a pod's pair. mark: None where it cannot be read, or is not written yet.

    bridge: the index, as text, of the bridge that it is a port of; empty for a routed pair.
    """

    mark: Mark | None
    is_cut: bool
    bridge: str
    is_written: bool


class LocalPods:
    """Kept by events of links.

    bridge: that of the pods to come, which its first pod makes; empty where they are routed.
    """

    def __init__(self, bridge: str = "") -> None:
        self._bridge = bridge
        self._ends: dict[str, _End] = {}
        self._others: set[str] = set()
        self._bridges: dict[str, str] = {}
        self._foreign: dict[str, str] = {}

    def read(self) -> None:
        """Read all links of the node. Raises KernelError."""
        with open_netlink() as nl:
            # As events have them: `read_links` puts names in the place of bridges' indices.
            links = [parse_link(message) for message in nl.dump(list_links())]
        self._ends.clear()
        self._others.clear()
        self._bridges.clear()
        self._foreign.clear()
        for link in links:
            self.receive(link, deleted=False)

    def receive(self, link: Link, *, deleted: bool) -> bool:
        """Take the event of a link in; whether the pods may be others now."""
        if not link.name.startswith(HOST_LINK_PREFIX):
            return self._receive_other(link, deleted)
        if is_host_link_name(link.name) and not link.kind:
            return False  # a bridge's about its port (net/bridge/br_netlink.c, br_fill_ifinfo)
        if link.kind != "veth" or not is_host_link_name(link.name):
            (self._others.discard if deleted else self._others.add)(link.name)
            return True
        before = self._ends.pop(link.name, None)
        if deleted:
            return before is not None
        alias = link.alias or ""
        is_cut = len(alias) >= ALIAS_MAX
        bridge = link.port.bridge if link.port else ""
        now = _End(parse_alias(alias), is_cut, bridge, is_marked(alias))
        self._ends[link.name] = now
        return now != before

    def _receive_other(self, link: Link, deleted: bool) -> bool:
        """A bridge, or a port of one that is no pod's."""
        before = self.bridges()
        if link.kind == "bridge":
            self._bridges.pop(str(link.index), None)
            if not deleted:
                self._bridges[str(link.index)] = link.name
        self._foreign.pop(link.name, None)
        if link.port and not deleted:
            self._foreign[link.name] = link.port.bridge
        return before != self.bridges()

    def bridges(self) -> frozenset[str]:
        """The bridges of pods, and of the first one to come, that have no other ports."""
        ends = self._ends.values()
        mixed = {e.bridge for e in ends if e.is_written and e.mark is None}
        mixed |= {*self._foreign.values()}
        names = {index: name for index, name in self._bridges.items() if index not in mixed}
        found = {names[e.bridge] for e in ends if e.bridge in names}
        if self._bridge and self._bridge not in {self._bridges.get(index) for index in mixed}:
            found.add(self._bridge)
        return frozenset(found)

    def pods(self, facts: Facts) -> list[LocalPod]:
        """Those of this node, and links of others whose names begin as those of pods do.

        One whose mark is not written yet is left out. A name that is too long to be written is
        none of Kubernetes'.
        """
        found = [LocalPod(name, None) for name in self._others]
        for name, end in self._ends.items():
            if not end.is_written:
                continue
            if end.mark is None:
                found.append(LocalPod(name, None))
            else:
                key, addresses = self._key(end.mark, end.is_cut, facts), _addresses(end)
                found.append(LocalPod(name, key, addresses, is_bridged=bool(end.bridge)))
        return found

    def _key(self, mark: Mark, is_cut: bool, facts: Facts) -> Key | None:
        """Namespace and name of the pod in a mark.

        Several pods may have a name that begins as one that was cut off. It is that of the pod
        which is known to have an address of the container's. Until then it is no pod's, of a
        namespace with policies if it may be.
        """
        namespace, separator, name = mark.pod.partition("/")
        if not is_cut:
            return (namespace, name) if name else None
        marks = (end.mark for end in self._ends.values() if end.mark)
        same = (m for m in marks if m.owner.container_id == mark.owner.container_id)
        own = {a.ip for m in same for a in m.addresses}
        alike = (key for key in facts.pods if "/".join(key).startswith(mark.pod))
        found = [key for key in alike if not own.isdisjoint(facts.pods[key].addresses)]
        if len(found) == 1:
            return found[0]
        if not separator:
            namespace = next((n for n, _ in facts.policies if n.startswith(namespace)), namespace)
        return namespace, f"{name}..."


def _addresses(end: _End) -> tuple[IPAddress, ...]:
    """Those of a pod; between ports of a bridge the link-local one leads to it, too."""
    if end.mark is None or not end.mark.addresses:
        return ()
    addresses = tuple(a.ip for a in end.mark.addresses)
    return (*addresses, link_local(pod_mac(end.mark))) if end.bridge else addresses


def bridge_to_come(settings: Settings) -> str:
    """The bridge of pods that the daemon's CNI configuration makes; empty where they are routed."""
    return DEFAULT_BRIDGE if settings.conflist and settings.conflist.mode == "bridge" else ""


def with_local(facts: Facts, local: Iterable[LocalPod], *, names_pods: bool) -> Facts:
    """The facts, with what this node knows of its own pods: their addresses.

    names_pods: a pod that the facts do not describe is known, with its name as its one label.
    """
    pods: dict[Key, PodFacts] = dict(facts.pods)
    for pod in local:
        if pod.key is None:
            continue
        known = pods.get(pod.key)
        if known is None and names_pods:
            known = PodFacts(*pod.key, {NAME_LABEL: pod.key[1]})
        if known:
            addresses = dict.fromkeys((*known.addresses, *pod.addresses))
            pods[pod.key] = replace(known, addresses=tuple(addresses))
    return replace(facts, pods=pods)


def summary(pods: Iterable[Key]) -> str:
    """The first of some pods, and how many more."""
    names = ["/".join(key) for key in pods]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
