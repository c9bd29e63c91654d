"""Keeps the kernel's policy rules as the source's policies and this node's pods ask for.

One thread. Events of links and of rules, and the source, wake it; it compiles all rules, and sends
what differs from those that it loaded last. While it does not run the kernel keeps the rules: what
was allowed stays, and pods that come meanwhile are closed where any policy is enforced.
"""

from __future__ import annotations

import select
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.backoff import Backoff
from daemon.journal import Action, Journal, Record
from daemon.liveness.watchdog import Watch, unwatched
from daemon.log import Log
from daemon.model import SourceActivity
from daemon.policy.compile import Compiled, LocalPod, compile_rules
from daemon.policy.cut_connections import Cuts
from daemon.policy.denials import Denials
from daemon.policy.describe import describe_changes
from daemon.policy.local_pods import LocalPods, summary, with_local
from daemon.policy.model import Facts, Key, PolicyCounts, PolicySource
from daemon.policy.saved_facts import SAVE_SECONDS, open_saved, read_facts
from kernel.errors import KernelError
from kernel.model import Link
from kernel.netlink.monitor import Event, Monitor, RuleChange
from kernel.nftables.policy import (
    TABLE,
    is_whole,
    load_policy,
    policy_is_present,
    remove_policy,
    render,
    render_changes,
)
from kernel.nftables.policy_rules import PolicyRules, narrowed
from kernel.read import has_virtual_services
from kernel.sysctl import dotted, read_sysctl

INTERVAL = 1.0
"""Seconds between looks at a source that does not announce its changes."""
_SHARE, _CREDIT = 13, 1.0
"""Facts are taken again after so many times the CPU time that the last ones took, but for seconds
of credit. Where pods come and go all the time, that bounds the share of a core; a few changes do
not wait."""
HOLD_SECONDS = 5.0
"""How long rules that are in the kernel at the start wait for the source: they may be newer than
the facts that were saved."""
CLOSED_SECONDS = 10.0
"""Seconds after which a pod that is not known yet is a fault."""
_GATHER = 0.005
"""Seconds in which further changes join the same transaction."""
BRIDGE_SYSCTLS = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
"""Whether frames between a bridge's ports pass nftables as packets do (br_netfilter)."""
_NAMED = 32
_NAME = "nftables rules of policies"
_CHANGED = "changed by another program"


class PolicyController:
    """fault: what is wrong now; empty where nothing is.

    saved: where the facts are kept for the next daemon and for `podwirectl`.
    unknown: whether pods whose labels are not known are let through. bridge: of pods to come.
    """

    def __init__(
        self,
        source: PolicySource,
        saved: Path,
        journal: Journal,
        log: Log,
        watch: Watch = unwatched,
        *,
        unknown: bool = False,
        bridge: str = "",
    ) -> None:
        self.fault, self.counts = "", PolicyCounts()
        self._source, self._saved, self._unknown = source, open_saved(saved), unknown
        self._journal, self._log = journal, log
        self._loop = watch("policy")
        self._local, self._pods = LocalPods(bridge), list[LocalPod]()
        self._facts: Facts | None = None
        self._is_delivered, self._is_ready, self._hold_until = False, False, 0.0
        self._notify: Callable[[], None] = lambda: None
        self._loaded: PolicyRules | None = None
        self._cuts = Cuts()
        self._due, self._cause, self._retry_at = 0.0, "", 0.0
        self._announced, self._take_at = 0.0, 0.0
        self._backoff = Backoff(0.2, 10.0, 30.0)
        self._denials, self._seen = Denials(journal, log), Facts()
        self._troubles: dict[str, str] = {}
        self._closed: dict[Key, float] = {}
        self._bridged: list[Key] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)

    @property
    def unready(self) -> str:
        """Why no pod may be attached yet; empty once there are rules for what is known."""
        if self._is_ready:
            return ""
        return "network policies are not known yet" + (f": {self.fault}" if self.fault else "")

    @contextmanager
    def running(self, notify: Callable[[], None]) -> Iterator[None]:
        """Keep the rules for the duration; they stay afterwards.

        notify: called once it is not unready any more.
        """
        self._notify = notify
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(INTERVAL * 5)

    @property
    def activity(self) -> SourceActivity:
        """What the source received so far."""
        return self._source.activity

    # -- the loop

    def _run(self) -> None:
        self._resume()
        self._source.start()
        try:
            while not self._stop.is_set():
                try:
                    with Monitor() as monitor:
                        self._follow(monitor)
                except Exception as error:  # whatever it is, the rules stay, and it goes on
                    self._note("kernel", _not_enforced(error))
                    self._log.debug(traceback.format_exc())
                    self._loop.beat()
                    self._stop.wait(INTERVAL)
        finally:
            self._source.close()
            self._denials.close()
            self._saved.close()
            self._loop.end()

    def _resume(self) -> None:
        """Take what an earlier daemon knew, and what it cut."""
        with suppress(KernelError):  # a kernel without nftables has no rules
            self._cuts.resume()
        try:
            self._facts = read_facts(self._saved.path)
        except FileNotFoundError:
            return
        except OSError as error:
            why = f"{error.filename or self._saved.path}: {error.strerror}"
            self._log.warning(f"the policies of the last run cannot be used: {why}")
        except ValueError as error:
            self._log.warning(f"the policies of the last run cannot be used: {error}")
        else:
            with suppress(KernelError):  # a kernel without nftables has no rules
                if policy_is_present():
                    self._hold_until = time.monotonic() + HOLD_SECONDS
                    self._note_ready()

    def _note_ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._notify()

    def _follow(self, monitor: Monitor) -> None:
        self._local.read()
        self._loaded = None
        self._wake("found at the start" if self._facts and self._facts.policies else "")
        poll = select.poll()
        packets = [log.fileno() for log in self._denials.open()]
        source = self._source.fileno()
        for descriptor in (monitor.fileno(), source, *packets):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        self._announced = 0.0 if source >= 0 else time.monotonic()
        while not self._stop.is_set():
            self._loop.beat()
            ready = {descriptor for descriptor, _event in poll.poll(self._pause() * 1000)}
            self._denials.take(self._seen)
            self._note_closed()
            self._note_bridged()
            self._note_ipvs()
            self._note("saved", self._saved.fault)
            for event in monitor.read():
                self._receive(event)
            if source in ready:
                # It stays readable until its facts are taken, with all that comes meanwhile.
                poll.modify(source, 0)
                self._announced = time.monotonic()
            if source < 0 or (self._announced and time.monotonic() >= self._taking):
                self._take()
                if source >= 0:
                    poll.modify(source, select.POLLIN)
            self._note("source", self._source.fault)
            if self._due and time.monotonic() >= self._updating:
                self._update(monitor)

    @property
    def _taking(self) -> float:
        """When facts are taken that were announced."""
        return max(self._announced + _GATHER, self._take_at)

    @property
    def _updating(self) -> float:
        """When the rules are updated that are due."""
        return max(self._due + _GATHER, self._retry_at, self._hold_until)

    def _pause(self) -> float:
        times = [self._taking] if self._announced else []
        if self._due:
            times.append(self._updating)
        return max(0.0, min([INTERVAL, *(at - time.monotonic() for at in times)]))

    def _wake(self, cause: str = "") -> None:
        self._due = self._due or time.monotonic()
        self._cause = self._cause or cause

    def _receive(self, event: Event) -> None:
        if event.kind == "lost":
            self._local.read()
            self._loaded = None
            self._wake("events of the kernel were lost")
        elif isinstance(event.noun, Link):
            if self._local.receive(event.noun, deleted=event.deleted):
                self._wake()
        elif _is_of_table(event):
            # Our own changes were read when they had been made: see `_load`.
            self._loaded, self._hold_until = None, 0.0
            self._wake(_CHANGED)

    def _take(self) -> None:
        began, announced, self._announced = time.thread_time(), self._announced, 0.0
        facts = self._source.take()
        self._rest(began)
        if facts is None:
            return
        if not self._is_delivered:
            # Rules of what was saved cut nothing. From nothing, all that is forbidden is cut.
            self._is_delivered, self._loaded, self._hold_until = True, None, 0.0
            self._due = self._due or announced or time.monotonic()
        if facts != self._facts:
            known = self._facts or Facts()
            self._report(known, facts)
            self._facts = facts
            self._saved.update(facts, SAVE_SECONDS if facts.policies != known.policies else None)
            self._due = self._due or announced or time.monotonic()

    # -- the rules

    def _update(self, monitor: Monitor) -> None:
        began, cause, self._due, self._cause = self._due, self._cause, 0.0, ""
        started = time.thread_time()
        try:
            self._apply(monitor, began, cause)
        except KernelError as error:
            self._loaded = None
            self._retry_at = time.monotonic() + self._backoff.next(time.monotonic())
            self._wake(cause)
            self._note("rules", _not_enforced(error))
        else:
            self._note("rules", "")
            self._note("kernel", "")
        if self._facts is not None:
            self._note_ready()
        self._rest(started)

    def _rest(self, began: float) -> None:
        """Put the next look at the source off. began: the thread's CPU time before its work."""
        earliest = time.monotonic() - _CREDIT
        self._take_at = max(earliest, self._take_at) + _SHARE * (time.thread_time() - began)

    def _apply(self, monitor: Monitor, began: float, cause: str) -> None:
        if self._facts is None:
            return  # nothing is known yet, and rules of an earlier daemon stay
        facts = self._facts
        self._pods = self._local.pods(facts)
        facts = with_local(facts, self._pods, names_pods=self._source.names_pods)
        self._seen = facts
        found = compile_rules(
            facts, self._pods, unknown=self._unknown, bridges=self._local.bridges()
        )
        self._bridged = [
            pod.key or ("", pod.link)
            for pod in self._pods
            if pod.is_bridged and not found.rules.limited.isdisjoint(pod.places)
        ]
        self._note_faults(facts, found)
        if facts.policies:
            self._load(monitor, found.rules, cause)
        else:
            self._unload(monitor)
        self._count(facts, found, began)

    def _unload(self, monitor: Monitor) -> None:
        if remove_policy():
            self._log.info("no policy is left: their rules are removed")
        self._loaded = None
        self._cuts.keep((), loaded=True)
        self._drain(monitor)

    def _load(self, monitor: Monitor, rules: PolicyRules, cause: str) -> None:
        """Bring the kernel to these rules in one transaction, then cut what they forbid."""
        old = self._loaded
        if old == rules:
            return
        # What was saved may be older than what the earlier daemon cut.
        is_new = self._is_delivered
        cuts = self._cuts.forbidden(rules, self._pods) if is_new else self._cuts.all
        script = render(rules, cuts) if old is None else render_changes(old, rules)
        if script:
            load_policy(script)
        self._cuts.keep(cuts, loaded=old is None)
        # The kernel's may have been newer than what was saved, which is no reason to cut any.
        narrower = narrowed(old or PolicyRules(), rules) if is_new else frozenset()
        if count := self._cuts.cut(rules, self._pods, narrower):
            self._log.info(f"cut {count} connections that policies forbid now")
        self._loaded = rules
        # What waits in the monitor by now are our own changes, unless rules are missing.
        self._drain(monitor)
        if not is_whole(rules):
            self._loaded = None
            self._retry_at = time.monotonic() + self._backoff.next(time.monotonic())
            self._wake(_CHANGED)
        elif cause:
            self._log.warning(f"restored {_NAME}: {cause}")
            self._record("restored", _NAME, cause)

    def _drain(self, monitor: Monitor) -> None:
        for event in monitor.read():
            if not _is_of_table(event):
                self._receive(event)

    # -- reports

    def _note_faults(self, facts: Facts, found: Compiled) -> None:
        faulty = [f"{name}: {why}" for name, why in found.faults.items()]
        more = f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
        remedy = "correct it; `podwirectl policy lint` names mistakes"
        text = f"NetworkPolicy {faulty[0]}; it lets nothing through{more}" if faulty else ""
        self._note("policies", f"{text}: {remedy}" if text else "")
        now = time.monotonic()
        self._closed = {key: self._closed.get(key, now) for key in found.closed}

    def _note_bridged(self) -> None:
        """Report pods whose packets the bridge does not show to nftables."""
        off = [s for s in BRIDGE_SYSCTLS if self._bridged and read_sysctl(s) != "1"]
        why = "are ports of a bridge, between which policies are not enforced"
        how = f"set {dotted(off[0])}=1 (module br_netfilter), or use mode ptp" if off else ""
        self._note("bridge", f"pods {summary(self._bridged)} {why}: {how}" if off else "")

    def _note_ipvs(self) -> None:
        """Report that packets to Services do not pass the rules.

        IPVS takes them as the node's own, and sends them so: none is forwarded.
        """
        off = bool(self.counts.selected) and has_virtual_services()
        why = "policies are not enforced on packets to Services, which IPVS translates"
        self._note("ipvs", f"{why}: use kube-proxy's mode nftables or iptables" if off else "")

    def _note_closed(self) -> None:
        """Report pods that the source has not described for a while."""
        late = [key for key, at in self._closed.items() if time.monotonic() - at >= CLOSED_SECONDS]
        why = "are closed, as their namespaces have policies and the source does not describe them"
        self._note("closed", f"pods {summary(late)} {why}: see the API server" if late else "")

    def _note(self, part: str, text: str) -> None:
        if self._troubles.get(part, "") != text:
            self._troubles[part] = text
            if text:
                self._log.warning(text)
            self.fault = next(filter(None, self._troubles.values()), "")

    def _count(self, facts: Facts, found: Compiled, began: float) -> None:
        self.counts = PolicyCounts(
            len(facts.policies),
            len(found.faults),
            sum(not found.rules.limited.isdisjoint(pod.places) for pod in self._pods),
            len(found.closed),
            self.counts.updates + 1,
            self._cuts.total,
            time.monotonic() - began,
        )

    def _report(self, old: Facts, new: Facts) -> None:
        """Policies that changed, to the journal."""
        records = describe_changes(old, new)
        for record in records[:_NAMED]:
            self._log.info(f"{record.action} {record.object}")
        self._journal.write(records[:_NAMED])
        if len(records) > _NAMED:
            self._record(
                "changed", f"{len(records) - _NAMED} more NetworkPolicies", "their objects"
            )

    def _record(self, action: Action, name: str, cause: str) -> None:
        self._journal.write([Record(time.time(), action, name, cause)])


def _not_enforced(error: Exception) -> str:
    return f"policies cannot be enforced: {error}: it is tried again; see journalctl -u podwired"


def _is_of_table(event: Event) -> bool:
    return isinstance(event.noun, RuleChange) and event.noun.table == TABLE
