"""What the store's attachments should have on the node, beside what the kernel has.

The store records the plan of each ADD. Bridges outlive attachments; they are desired while one
needs them, with the gateways of all.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Container,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cni_plugin.attachment import DAMAGE, Record, load_record
from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.store_index import find_stores
from ipam.store import Owner, Transaction, read_store
from kernel.describe import describe
from kernel.diff import Change, Noun, diff_space
from kernel.link_states import LinkStates
from kernel.model import (
    RTPROT_PODWIRE,
    Address,
    Bridge,
    IPInterface,
    Link,
    Port,
    Redirect,
    Space,
    Sysctl,
    TokenBucket,
)
from kernel.netlink.socket import Netlink
from kernel.sysctl import read_sysctl
from kernel.traffic_control import read_limits

_NOTHING = Space()
LATER = 1.0
"""Seconds until what a call is about is compared again."""
AGAIN = 5.0
"""Seconds until what could not be repaired is."""
YOUNG = 2.0
"""Seconds that a link must have existed: without a daemon an ADD holds no lock, and adds members of
nftables' sets last."""
Changes = tuple[Change[Noun], ...]

Idle = Callable[[Iterable[Hashable]], AbstractContextManager[Container[Hashable]]]
"""Keeps calls away from attachments (container ID and interface) that none is about; which."""


@contextmanager
def all_idle(attachments: Iterable[Hashable]) -> Iterator[Container[Hashable]]:
    """No calls are served beside."""
    yield frozenset(attachments)


def text_of(changes: Changes) -> str:
    """The differences in sentences."""
    return "; ".join(map(describe, changes))


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment as recorded.

    link: its node's end, None where that is gone, or the name is another link's. desired: what the
    node should have of it.
    """

    owner: Owner
    record: Record
    desired: Space
    link: Link | None = None

    @property
    def name(self) -> str:
        """The name of its link."""
        return self.desired.links[0].name

    @property
    def call(self) -> tuple[str, str]:
        """What calls about it are exclusive by."""
        return self.owner.container_id, self.owner.ifname

    @property
    def bridge(self) -> str:
        """The bridge that it needs; empty for none."""
        return self.record.plan.bridge.name if self.record.plan.bridge else ""

    @property
    def title(self) -> str:
        """Its node's end, as journal and log name it."""
        return f"link {self.name} of {self._pod}"

    @property
    def title_in_pod(self) -> str:
        """The pod's end, as journal and log name it."""
        return f"link {self.owner.ifname} in {self._pod}"

    @property
    def _pod(self) -> str:
        return self.record.pod or f"container {self.owner.container_id[:16]}"


@dataclass(frozen=True, slots=True)
class NodeSide:
    """attached: attachments by the name of their link; bridges: by name, with all gateways.

    changes: what differs, by link; nothing of an attachment without its link. present: what each
    link of the node has, by name.
    """

    attached: Mapping[str, Attached]
    bridges: Mapping[str, Bridge]
    changes: Mapping[str, Changes]
    present: Mapping[str, Space]

    def has_gateway(self, gateway: IPInterface) -> bool:
        """Whether an attachment has it on its bridge."""
        bridges = (each.record.plan.bridge for each in self.attached.values())
        return any(gateway in bridge.gateways for bridge in bridges if bridge)


class NodeSideReader:
    """Reads store and kernel, and compares what is not the same as at the last time."""

    def __init__(self, nl: Netlink, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._nl, self._states = nl, LinkStates(nl, RTPROT_PODWIRE)
        self._records: dict[Owner, tuple[str, Attached | None]] = {}
        self._compared: dict[str, tuple[Space, Space, Changes]] = {}

    def read(self, own: Bridge | None, with_settings: Collection[str] | None) -> NodeSide:
        """Both sides as they are now. Raises KernelError, IpamError.

        own: the bridge of the daemon's own conflist. with_settings: links whose settings are
        compared though nothing else of them differs; None: all.
        """
        recorded = self._read_records()
        present = self._states.read()
        attached = {each.name: replace(each, link=_own_link(each, present)) for each in recorded}
        bridges = merge_bridges(attached.values(), own, present)
        desired = {each.name: each.desired for each in recorded if attached[each.name].link}
        desired |= {name: _bridge_space(bridge) for name, bridge in bridges.items()}
        limited = self._read_limited(desired, present)
        changes: dict[str, Changes] = {}
        known, self._compared = self._compared, {}
        for name, space in desired.items():
            observed = limited.get(name) or present.get(name, _NOTHING)
            last = known.get(name)
            same = last is not None and (last[0], last[1]) == (space, observed)
            found = last[2] if last and same else compare_link(space, observed)
            self._compared[name] = (space, observed, found)
            changes[name] = found
        for name, space in desired.items():
            # What a setting took along (addresses, with disable_ipv6) comes back after it alone.
            if with_settings is None or name in with_settings or changes[name]:
                changes[name] = (*changes[name], *_compare_settings(space.sysctls))
        if own and own.name in bridges and own.name in present:
            changes[own.name] = (*changes[own.name], *strays(bridges[own.name], present[own.name]))
        return NodeSide(attached, bridges, {n: c for n, c in changes.items() if c}, present)

    def _read_limited(
        self, desired: Mapping[str, Space], present: Mapping[str, Space]
    ) -> dict[str, Space]:
        """What is there of links that should have limits, with their ifb devices, by name."""
        some = {name: space for name, space in desired.items() if space.buckets}
        if not some:
            return {}
        indexes = {name: space.links[0].index for name, space in present.items()}
        every = Space(
            buckets=tuple(bucket for space in some.values() for bucket in space.buckets),
            redirects=tuple(redirect for space in some.values() for redirect in space.redirects),
        )
        buckets, redirects = read_limits(self._nl, every, indexes)
        return {
            name: _limited(present[name], space, present, buckets, redirects)
            for name, space in some.items()
        }

    def _read_records(self) -> list[Attached]:
        """Those of all stores of the node: a network may have its own."""
        old, self._records = self._records, {}
        for folder in find_stores(DEFAULT_INDEX, self._data_dir):
            for owner, text in read_store(folder, Transaction.attachments) or ():
                same = owner in old and old[owner][0] == text
                self._records[owner] = old[owner] if same else (text, _load(owner, text))
        return [attached for _text, attached in self._records.values() if attached]


def _load(owner: Owner, text: str) -> Attached | None:
    try:
        record = load_record(text)
    except DAMAGE:
        return None  # of another version: it is removed by its DEL
    # Links of another plugin are not podwire's to repair.
    return None if record.foreign else Attached(owner, record, node_space(record))


def node_space(record: Record) -> Space:
    """What the node should have of an attachment; settings of the whole node are the back end's."""
    space = record.whole.node if record.pieces else record.plan.node
    host = space.links[0]
    if record.complete and host.port is None:
        host = replace(host, port=Port(""))
    own = tuple(s for s in space.sysctls if host.name in s.path.split("/"))
    return replace(space, links=(host, *space.links[1:]), sysctls=own)


def _own_link(attached: Attached, present: Mapping[str, Space]) -> Link | None:
    """The link if it is the attachment's: its alias or its MAC, both derived from it, proves it."""
    planned = attached.desired.links[0]
    link = present[planned.name].links[0] if planned.name in present else None
    if link is None or link.kind != "veth":
        return None
    return link if link.alias == planned.alias or link.mac == planned.mac else None


def compare_link(desired: Space, observed: Space) -> Changes:
    """What a link lacks, or has otherwise, but for its settings; pure."""
    return diff_space(replace(desired, sysctls=()), observed)


def _compare_settings(desired: tuple[Sysctl, ...]) -> Changes:
    values = ((s, read_sysctl(s.path)) for s in desired)
    observed = tuple(replace(s, value=value) for s, value in values if value is not None)
    return diff_space(Space(sysctls=desired), Space(sysctls=observed))


def merge_bridges(
    attached: Collection[Attached], own: Bridge | None, present: Mapping[str, Space]
) -> dict[str, Bridge]:
    """The bridges that attachments with a link need, and the daemon's own if it is there; pure.

    Each has the gateways of all attachments, also of those without a link.
    """
    bridges = {own.name: own} if own and own.name in present else {}
    needed = {each.bridge for each in attached if each.link} | bridges.keys()
    for bridge in (each.record.plan.bridge for each in attached if each.bridge in needed):
        if bridge is None:
            continue
        known = bridges.get(bridge.name) or (own if own and own.name == bridge.name else bridge)
        if bridge == known:
            bridges[bridge.name] = bridge
            continue
        bridges[bridge.name] = replace(
            known,
            promisc=known.promisc or bridge.promisc,
            gateways=tuple(dict.fromkeys((*known.gateways, *bridge.gateways))),
            force_address=known.force_address or bridge.force_address,
            sysctls=tuple(dict.fromkeys((*known.sysctls, *bridge.sysctls))),
        )
    return bridges


def _limited(
    own: Space,
    desired: Space,
    present: Mapping[str, Space],
    buckets: tuple[TokenBucket, ...],
    redirects: tuple[Redirect, ...],
) -> Space:
    """A link as observed, with the ifb devices and the limits among these that desired names."""
    names = {link.name for link in desired.links}
    ifbs = (present[name].links[0] for name in names & present.keys() if name != own.links[0].name)
    return replace(
        own,
        links=(*own.links, *ifbs),
        buckets=tuple(bucket for bucket in buckets if bucket.link in names),
        redirects=tuple(redirect for redirect in redirects if redirect.link in names),
    )


def _bridge_space(bridge: Bridge) -> Space:
    addresses = tuple(Address(bridge.name, gateway) for gateway in bridge.gateways)
    link = Link(bridge.name, "bridge", promisc=bridge.promisc)
    return Space((link,), addresses, sysctls=bridge.sysctls)


def strays(bridge: Bridge, observed: Space) -> Changes:
    """Gateways that podwire gave to the bridge of the daemon's conflist, and that none has now.

    Of another bridge the configuration is not known, which may have them for pods to come.
    """
    ours = (a for a in observed.addresses if a.protocol == RTPROT_PODWIRE)
    return tuple(Change(None, a) for a in ours if a.address not in bridge.gateways)
