"""All that differs between what this node should have and what its kernel has; changes nothing.

The plan and the comparisons are those of the daemon's reconcilers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cni_plugin.rule_repair import PREFIXES, TABLE_MISSING, find_missing_rules
from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.options import Unusable
from daemon.policy.saved_facts import SAVE_SECONDS, saved_path
from daemon.routing.conflist import bridge_of, describe_difference
from daemon.routing.nft_rules import excluded_elements, planned_elements
from daemon.routing.node_side import Attached, NodeSideReader
from daemon.routing.peer_filter import RETIRE_SECONDS, filter_elements
from ipam.errors import IpamError
from kernel.conntrack import tracks_connections
from kernel.describe import describe, name_of, state_of
from kernel.diff import Change, Key, Noun, by_key, compare, diff
from kernel.errors import KernelError, TooManyObjects
from kernel.model import Acceptance, Bridge, ChainRules, Element, Entry, Port
from kernel.netlink.socket import Netlink
from kernel.nftables.masquerade import element_changes
from kernel.nftables.peer_filter import peer_filter_changes
from kernel.nftables.ruleset import NODE_SETS
from kernel.nftables.table import TABLE
from kernel.pod_side import compare_pod, open_pod
from kernel.read import read_addresses
from kernel.sysctl import read_sysctl
from kernel.vxlan import find_vxlan, is_automatic

AREAS = (
    "settings", "device", "routes", "rules", "filter", "policy", "conflist", "attachments", "pods",
)  # fmt: skip
"""What is compared, in the daemon's order."""
_SECOND_LOOK = 0.5
"""Seconds until what a call or the daemon is just about to change has been changed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that is not as desired.

    of: the peer, pod or file that it belongs to; empty for the node. desired, observed: its states,
    empty where it should not be, or is not there. text: both in a sentence. noun: the object, None
    for what is no single one of the kernel's.
    """

    area: str
    of: str
    name: str
    desired: str
    observed: str
    text: str
    noun: Noun | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, str]:
        """The shape that docs/operations.md documents."""
        names = ("area", "of", "name", "desired", "observed", "text")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Compared:
    """faults: why areas could not be compared, by their names."""

    found: tuple[Difference, ...]
    faults: Mapping[str, Exception]


Step = Callable[[], Iterable[Difference]]


def compare_node(
    nl: Netlink, settings: Settings, desired: Desired | None, entries: dict[Key, Entry]
) -> Compared:
    """Compare everything. desired: None where the node cannot be planned, which leaves attachments.

    entries: what leads to other nodes now.
    """
    steps: list[tuple[str, Step]] = []
    if desired:
        steps += [
            ("settings", partial(_settings, desired)),
            ("device", partial(_device, nl, settings, desired)),
            ("routes", partial(_entries, desired, entries)),
            ("rules", partial(_rules, settings, desired)),
            ("filter", partial(_filter, settings, desired)),
            ("conflist", partial(_conflist, settings, desired)),
        ]
    own = None
    if desired and settings.conflist:
        own = bridge_of(settings.conflist, desired.pod_cidrs, desired.pod_mtu)
    steps += [
        ("policy", partial(_policy, settings)),
        ("attachments", partial(_attachments, nl, settings.data_dir, own)),
    ]
    return _compare(steps)


def compare_attachments(nl: Netlink, data_dir: Path) -> Compared:
    """Compare what needs no plan: pods' links, bridges, and what is in the pods."""
    return _compare([("attachments", partial(_attachments, nl, data_dir, None))])


def _compare(steps: Iterable[tuple[str, Step]]) -> Compared:
    found, faults = list[Difference](), dict[str, Exception]()
    for area, step in steps:
        try:
            found += step()
        except (KernelError, IpamError, OSError, Unusable) as error:
            faults[area] = error
    return Compared(tuple(found), faults)


def _difference(area: str, change: Change[Noun], of: str = "") -> Difference:
    name, text = name_of(change.noun), describe(change)
    desired, observed = _state(change.desired), _state(change.observed)
    if isinstance(change.noun, ChainRules):
        text = f"{name}: {text}"
        if change.desired and change.observed:
            desired, observed = "as planned", "others"
    return Difference(area, of, name, desired, observed, text, change.noun)


def _state(noun: Noun | None) -> str:
    """Empty for what is not there, and for that alone: some objects have nothing but a name."""
    return "" if noun is None else state_of(noun) or "present"


def _settings(desired: Desired) -> Iterator[Difference]:
    for setting in desired.sysctls:
        value = read_sysctl(setting.path)
        change = compare(setting, None if value is None else replace(setting, value=value))
        if change:
            yield _difference("settings", change)


def _device(nl: Netlink, settings: Settings, desired: Desired) -> Iterator[Difference]:
    link = find_vxlan(nl, settings.vxlan.device)
    if desired.device is None:
        return
    change = compare(replace(desired.device, port=Port(""), arp=True), link)
    if change:
        yield _difference("device", change)
    present = read_addresses(nl, [link]) if link else ()
    wanted = by_key(desired.device_addresses)
    ours = {k: a for k, a in by_key(present).items() if k in wanted or not is_automatic(a)}
    for each in diff(wanted, ours) if link else ():
        yield _difference("device", each)


def _entries(desired: Desired, observed: dict[Key, Entry]) -> Iterator[Difference]:
    peers = {**desired.peers, desired.me.name: desired.own_routes}
    owners = {key: name for name, entries in peers.items() for key in by_key(entries)}
    wanted = {key: each for entries in peers.values() for key, each in by_key(entries).items()}
    for change in diff(wanted, observed):
        keys = by_key([change.noun])
        yield _difference("routes", change, owners.get(next(iter(keys)), ""))


def _rules(settings: Settings, desired: Desired) -> Iterator[Difference]:
    for change in element_changes(
        excluded_elements(settings, desired.services) | planned_elements(desired), NODE_SETS
    ):
        yield _difference("rules", change)
    for what, _index in sorted(find_missing_rules(settings.data_dir), key=str):
        yield _missing_rule(what)


def _missing_rule(what: str | Element | Acceptance) -> Difference:
    if isinstance(what, Element | Acceptance):
        return _difference("rules", Change(what, None))
    texts = {
        TABLE_MISSING[0]: f"nft table inet {TABLE} is missing",
        PREFIXES: f"the prefixes that are masqueraded in nft table inet {TABLE} differ",
    }
    text = texts.get(what, f"rules of nft table inet {TABLE} for {what} are missing")
    return Difference("rules", "", f"nft table inet {TABLE}", "as planned", "", text)


def _filter(settings: Settings, desired: Desired) -> Iterator[Difference]:
    untracked = bool(desired.device) and tracks_connections()
    for change in peer_filter_changes(filter_elements(settings, desired), untracked=untracked):
        yield _difference("filter", change)


def _policy(settings: Settings) -> Iterator[Difference]:
    from ctl.policy.differences import compare_policy
    from ctl.policy.ends import read_known

    known = None
    if settings.enforces_policies:
        if not saved_path(settings.data_dir).exists():
            return  # the daemon has not known any policy yet
        known = read_known(settings)
    for found in compare_policy(known):
        yield Difference("policy", *found)


def settle_seconds(found: Iterable[Difference]) -> float:
    """How long to wait until a second look must find the same.

    The daemon saves what it knows of policies now and then, later than it enforces them. A peer
    that left is in the filter's sets for a while.
    """
    known = list(found)
    is_policy = any(each.area == "policy" for each in known)
    has_left = any(each.area == "filter" and not each.desired for each in known)
    gap = max(4 * SAVE_SECONDS * is_policy, RETIRE_SECONDS * has_left)
    return gap + _SECOND_LOOK


def _conflist(settings: Settings, desired: Desired) -> Iterator[Difference]:
    text = describe_difference(settings, desired)
    if text and settings.conflist:
        path = str(settings.conflist.path)
        yield Difference("conflist", path, f"file {path}", "as planned", "", text)


def _attachments(nl: Netlink, data_dir: Path, own: Bridge | None) -> Iterator[Difference]:
    side = NodeSideReader(nl, data_dir).read(own, None)
    for name, changes in side.changes.items():
        attached = side.attached.get(name)
        of = attached.record.pod or attached.owner.container_id if attached else ""
        for change in changes:
            yield _difference("attachments", change, of)
    for each in side.attached.values():
        yield from _pod(nl, each)


def _pod(nl: Netlink, each: Attached) -> Iterator[Difference]:
    of = each.record.pod or each.owner.container_id
    if each.link is None:
        text = f"{each.title} is gone, or is another's by now"
        link = each.desired.links[0]
        yield Difference("attachments", of, name_of(link), state_of(link), "", text, link)
        return
    pod = open_pod(nl, each.record.netns, each.name) if each.record.complete else None
    if pod is None:
        return
    with pod, suppress(TooManyObjects):  # a router's, or a trap: others' differences count
        for change in filter(_is_lost, compare_pod(pod, each.record.whole.pod)):
            yield replace(_difference("pods", change, of), text=describe(change, "pod"))


def _is_lost(change: Change[Noun]) -> bool:
    """Whether the pod lacks something; another MTU, MAC or route may be its own choice."""
    return change.observed is None or change.concerns(("up",))
