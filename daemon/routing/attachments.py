"""Pods' links, their routes and bridges on this node, kept as ADD made them.

Level-triggered: an event of a link that matters wakes a comparison of all with the store's records.
What a call is about, or has just made, is left alone. A link is touched only where its alias or its
MAC proves whose it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.names import is_host_link_name
from cni_plugin.reclaim import has_lost_namespace, has_vanished, reclaim_vanished
from cni_plugin.store_access import bridge_users
from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.routing.authors import describe_event
from daemon.routing.conflist import bridge_of
from daemon.routing.counters import Drift
from daemon.routing.node_side import (
    AGAIN,
    LATER,
    YOUNG,
    Attached,
    Changes,
    Idle,
    NodeSide,
    NodeSideReader,
    all_idle,
    text_of,
)
from daemon.routing.pod_sides import PodSides
from daemon.routing.reporter import Reporter
from ipam.files import Files
from ipam.store import READ_PATIENCE, open_store
from kernel.bridge import IsUsed, check_bridge, ensure_bridge, no_users
from kernel.describe import name_of, state_of
from kernel.errors import KernelError
from kernel.model import (
    RTPROT_PODWIRE,
    Address,
    Bridge,
    Element,
    IPNetwork,
    Link,
    Route,
    Sysctl,
)
from kernel.netlink import links
from kernel.netlink.codec import NLM_F_REPLACE
from kernel.netlink.monitor import Event, LimitChange
from kernel.netlink.socket import Netlink
from kernel.nftables.spoof_check import has_source_check
from kernel.repair import repair

GAP = 0.2
"""Seconds between two comparisons, however many events there are."""
_NAMED = 2
"""Attachments that the status names."""
_LOST = "its link is gone, or is another's by now: recreate the pod"
_LEFT = "its pod is gone, and was not deleted: what it had is freed by DEL or GC"


class Attachments:
    """Reconciles the node's side of the attachments in all stores of the node.

    total, in_sync: how many there are, and how many are as planned, at the last comparison.
    mappings: the elements of their host ports.
    """

    def __init__(
        self, nl: Netlink, settings: Settings, reporter: Reporter, idle: Idle = all_idle
    ) -> None:
        self.total = self.in_sync = 0
        self.mappings: tuple[Element, ...] = ()
        self._nl, self._settings, self._reporter, self._idle = nl, settings, reporter, idle
        self._reader = NodeSideReader(nl, settings.data_dir)
        self._own: Bridge | None = None
        self._planned: Desired | None = None
        self._due, self._last = 0.0, -math.inf
        self._settings_of: set[str] | None = None
        self._watched: frozenset[str] = frozenset()
        self._ifbs: dict[str, str] = {}
        self._routes: dict[IPNetwork, str] = {}
        self._taken: set[IPNetwork] = set()
        self._causes = {"": "found at the start"}
        self._since: dict[int, float] = {}
        self._gone: dict[str, float] = {}
        self._drift = Drift[Hashable](reporter.counts)
        self._pods = PodSides(nl, settings, reporter, idle)
        self._macs: dict[str, str] = {}

    def receive(self, event: Event) -> None:
        """Take an event in."""
        noun, name = event.noun, ""
        if isinstance(noun, Link):
            name = self._ifbs.get(noun.name, noun.name)
            if name not in self._watched and is_host_link_name(name):
                self._wake(LATER)  # an ADD, which is left alone
                self._note_setting(name)
        elif isinstance(noun, Route):
            name = self._route_link(noun, event)
        elif isinstance(noun, LimitChange):
            name = self._ifbs.get(noun.link, noun.link)
        elif isinstance(noun, Address):
            name = noun.link
        elif isinstance(noun, Sysctl):
            name = noun.path.split("/")[3]
            if name in self._watched or is_host_link_name(name):
                self._note_setting(name)
        if name in self._watched:
            if isinstance(noun, Link):
                self._pods.expect([name])  # the pod's end may have gone down
            how = describe_event("removed" if event.deleted else "changed", event)
            self._causes.setdefault(name, f"{event.kind} was {how}")
            self._wake(0.0)

    def _note_setting(self, name: str) -> None:
        """A setting of a link may have changed, also of one that is not known yet."""
        if self._settings_of is not None:
            self._settings_of.add(name)

    def _route_link(self, route: Route, event: Event) -> str:
        """The attachment's link whose route went, or gave its place to another route."""
        if event.deleted and route.protocol == RTPROT_PODWIRE:
            return route.link
        if event.flags & NLM_F_REPLACE and route.dst in self._routes:
            self._taken.add(route.dst)
            return self._routes[route.dst]
        return ""

    def tick(self) -> None:
        """Look whether pods changed in their own namespaces. Raises KernelError."""
        if self._pods.read_events(self._watched):
            self._wake(0.0)

    def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self._pods.close()

    def resync(self, cause: str) -> None:
        """Compare everything, for what the cause may have changed."""
        self._settings_of = None
        self._causes.setdefault("", cause)
        self._wake(0.0)

    def _wake(self, seconds: float) -> None:
        self._due = min(self._due, max(time.monotonic() + seconds, self._last + GAP))

    def reconcile(self, desired: Desired | None) -> float | None:
        """Compare if that is due, and repair; seconds until it is due again.

        Raises KernelError, IpamError.
        """
        self._plan(desired)
        now = time.monotonic()
        if now >= self._due:
            self._due, self._last = math.inf, now
            try:
                self._compare(now)
            except BaseException:
                self._wake(LATER)
                raise
        return None if self._due == math.inf else max(0.0, self._due - time.monotonic())

    def _plan(self, desired: Desired | None) -> None:
        if desired is None or desired is self._planned:
            return
        own = _own_bridge(self._settings, desired)
        if own != self._own or self._reporter.faults["bridge"]:
            self._own = own
            self._wake(0.0)
        self._planned = desired

    def _compare(self, now: float) -> None:
        found = self._reader.read(self._own, self._settings_of)
        self._note(found, now)
        ripe = [name for name in found.changes if self._is_ripe(found, name, now)]
        wrong = dict[str, str]()
        if ripe:
            found = self._repair_all(found, ripe, wrong)
        wrong |= self._missing(found, now)
        wrong |= self._pods.repair(found.attached.values(), self._since, now)
        if self._pods.wait is not None:
            self._wake(self._pods.wait)
        self._drift.settle({_key(name) for name in found.changes}.__contains__)
        self._check_own_bridge(found)
        self._report_unchecked(found)
        # What is still to be repaired is compared with its settings again.
        self._settings_of, self._taken = set(found.changes), set()
        self._causes = {n: c for n, c in self._causes.items() if n in found.changes}
        self._report_wrong(found, wrong)

    def _note(self, found: NodeSide, now: float) -> None:
        """What the next events and comparisons need of this one."""
        if "" in self._causes:
            self._pods.expect(found.attached)
        own = {self._own.name} if self._own else set[str]()
        self.mappings = tuple(
            element
            for each in found.attached.values()
            for element in each.record.whole.elements
            if element.data is not None
        )
        self._watched = frozenset({*found.attached, *found.bridges, *own})
        self._ifbs = {
            link.name: name
            for name, each in found.attached.items()
            for link in each.desired.links[1:]
        }
        self._routes = {
            route.dst: name
            for name, each in found.attached.items()
            for route in each.desired.routes
        }
        links = [each.link for each in found.attached.values() if each.link]
        self._since = {link.index: self._since.get(link.index, now) for link in links}
        for name in found.bridges.keys() & found.present.keys():
            self._macs[name] = found.present[name].links[0].mac or ""

    def _is_ripe(self, found: NodeSide, name: str, now: float) -> bool:
        """Whether a link may be repaired now; if not, it is compared again when it may."""
        attached = found.attached.get(name)
        wait = self._reporter.pause_before(_key(name))
        if attached and attached.link:
            wait = max(wait, self._since[attached.link.index] + YOUNG - now)
        if wait > 0:
            self._wake(wait)
        else:
            self._drift.note(_key(name), f"link {name}")
        return wait <= 0

    def _repair_all(self, found: NodeSide, names: Iterable[str], wrong: dict[str, str]) -> NodeSide:
        """Repair these links, and read back. wrong: takes why one is not as planned."""
        calls = {n: found.attached[n].call for n in names if n in found.attached}
        with self._idle(calls.values()) as idle:
            # A call may have ended between the comparison and the locks.
            found = self._reader.read(self._own, self._settings_of)
            ready = [n for n in names if n not in calls or calls[n] in idle]
            # Bridges first: ports need them.
            for name in sorted(ready, key=calls.__contains__):
                wrong |= self._repair(found, name, found.changes.get(name, ()))
            if len(ready) < len(list(names)):
                self._wake(LATER)
            found = self._reader.read(self._own, self._settings_of)
        for name in ready:
            if name in found.changes:
                wrong.setdefault(name, text_of(found.changes[name]))
        return found

    def _repair(self, found: NodeSide, name: str, changes: Changes) -> dict[str, str]:
        """Repair one link; why that failed, by its name."""
        if not changes:
            return {}
        attached = found.attached.get(name)
        try:
            if attached and attached.link:
                repair(self._nl, changes, attached.link.index, self._taken)
            elif name in found.bridges:
                self._repair_bridge(found.bridges[name])
        except KernelError as error:
            self._reporter.report_failure(f"{_title(found, name)}: {error}")
            self._wake(AGAIN)
            return {name: str(error)}
        cause = self._causes.get(name) or self._causes.get("", "found by a comparison")
        after = "; ".join(
            f"{name_of(c.desired)} {state_of(c.desired)}" for c in changes if c.desired
        )
        title = _title(found, name)
        self._reporter.report_repair(_key(name), title, cause, text_of(changes), after)
        return {}

    def _repair_bridge(self, bridge: Bridge) -> None:
        made: list[str] = []
        ensure_bridge(self._nl, bridge, made.append, users=self._users)
        mac = self._macs.get(bridge.name)
        if made and mac:
            # Pods know the gateway by the MAC that the bridge had.
            self._nl.run([links.set_mac(bridge.name, mac)])

    @contextmanager
    def _users(self) -> Iterator[IsUsed]:
        folder = self._settings.data_dir
        if Files(folder).database.exists():
            opened = open_store(folder, create=False, patience=READ_PATIENCE)
            with opened as store, bridge_users(store) as is_used:
                yield is_used
        else:
            with no_users() as is_used:
                yield is_used

    def _missing(self, found: NodeSide, now: float) -> dict[str, str]:
        """Attachments whose link is gone, and that no call is about to remove."""
        gone = {name: each for name, each in found.attached.items() if each.link is None}
        self._gone = {name: self._gone.get(name, now) for name in gone}
        due = {n: each for n, each in gone.items() if now - self._gone[n] >= YOUNG}
        with self._idle(each.call for each in due.values()) as idle:
            lost = {n: each for n, each in due.items() if each.call in idle}
            lost = self._without_vanished(lost)
        if gone:  # of the DEL of an attachment without a link there is no event
            self._wake(LATER if len(lost) < len(gone) else AGAIN)
        wrong = {n: _LEFT if has_lost_namespace(e.record.netns) else _LOST for n, e in lost.items()}
        for name, why in wrong.items():
            if self._gone[name] > -math.inf:
                self._gone[name] = -math.inf
                self._reporter.report_change("found", _title(found, name), why)
        return wrong

    def _without_vanished(self, lost: dict[str, Attached]) -> dict[str, Attached]:
        """The same, without those whose pod is gone as well, which are freed."""
        kept = {name: each for name, each in lost.items() if not has_vanished(each.record)}
        if len(kept) == len(lost):
            return lost
        log, folder = self._reporter.log.info, self._settings.data_dir
        freed = reclaim_vanished(folder, DEFAULT_INDEX, log, READ_PATIENCE)
        return kept if freed else lost

    def _check_own_bridge(self, found: NodeSide) -> None:
        """Find out whether an ADD of the daemon's own network could use its bridge."""
        fault, own = "", self._own
        if own:
            try:
                check_bridge(self._nl, found.bridges.get(own.name, own), found.has_gateway)
            except KernelError as error:
                fault = str(error)
        self._reporter.report_fault("bridge", fault)

    def _report_unchecked(self, found: NodeSide) -> None:
        """Report pods that were made without the source check that their network has by now."""
        conflist = self._settings.conflist
        if not conflist or not conflist.source_check:
            return
        bare = [
            each.title
            for each in found.attached.values()
            if each.owner.network == conflist.name
            and not has_source_check(each.record.plan.elements)
        ]
        text = (
            f"{len(bare)} of {len(found.attached)} attachments were made without the source check"
        )
        why = f"{text}, and may send from any address ({', '.join(bare[:_NAMED])}): recreate them"
        if self._reporter.faults.set("unchecked", why if bare else ""):
            self._reporter.log.warning(why)

    def _report_wrong(self, found: NodeSide, wrong: dict[str, str]) -> None:
        bad = [n for n, each in found.attached.items() if n in wrong or each.bridge in wrong]
        self.total, self.in_sync = len(found.attached), len(found.attached) - len(bad)
        named = [f"{_title(found, name)}: {why}" for name, why in [*wrong.items()][:_NAMED]]
        count = f"{len(bad)} of {self.total} attachments are not as planned: "
        text = f"{count}{'; '.join(named)}{' ...' if len(wrong) > _NAMED else ''}"
        if self._reporter.faults.set("attachments", text if wrong else ""):
            self._reporter.log.warning(text)


def _key(name: str) -> Hashable:
    return ("link", name)


def _title(found: NodeSide, name: str) -> str:
    return found.attached[name].title if name in found.attached else f"link {name}"


def _own_bridge(settings: Settings, desired: Desired) -> Bridge | None:
    conflist = settings.conflist
    return bridge_of(conflist, desired.pod_cidrs, desired.pod_mtu) if conflist else None
