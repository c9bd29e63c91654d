"""Repairs that `doctor --fix` makes: what the daemon would do, while it does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from ctl.doctor.observed import Observed
from daemon.journal import Journal, Record
from daemon.model import Desired
from daemon.options import NodeFiles
from daemon.routing.node_side import Attached, Changes, NodeSideReader
from daemon.routing.sysctls import device_sysctls
from ipam.errors import IpamError
from kernel.bridge import IsUsed, ensure_bridge
from kernel.conntrack import forget_pods
from kernel.describe import name_of
from kernel.diff import by_key, diff
from kernel.errors import KernelError
from kernel.forwarding import apply_node_settings
from kernel.model import Bridge
from kernel.netlink.socket import Netlink
from kernel.pod_side import open_pod, repair_pod
from kernel.repair import repair
from kernel.routes import change_entries, read_entries
from kernel.vxlan import ensure_vxlan

_CAUSE = "podwirectl doctor --fix"


def fix(seen: Observed, files: NodeFiles) -> Iterator[str]:
    """Repair what can be, and name each step; what fails is named as well."""
    found = seen.daemon.published
    if found and found.suspended:
        os.kill(found.pid, signal.SIGCONT)
        yield f"podwired (pid {found.pid}) goes on, and repairs the rest"
    if seen.stale_flows:
        forget_pods({flow.pod for flow in seen.stale_flows})
        yield f"{len(seen.stale_flows)} stale connections are forgotten"
    if not (found and found.running):
        yield from _repair_all(seen.desired, files)


def _repair_all(desired: Desired | None, files: NodeFiles) -> Iterator[str]:
    """In the daemon's order. Raises nothing: what fails stays a finding, and stops nothing else.

    desired: None where there is no plan, which leaves attachments.
    """
    with Netlink() as nl, closing(Journal(files.journal, files.journal_bytes)) as journal:
        attempt = partial(_attempt, journal)
        if desired:
            for step in (_settings, _device, _entries):
                yield from attempt("", partial(step, nl, desired))
        try:
            side = NodeSideReader(nl, files.data_dir).read(None, None)
        except (KernelError, IpamError, OSError) as error:
            yield f"not repaired: links of pods: {error}"
            return
        for name in side.bridges.keys() & side.changes.keys():
            yield from attempt(f"link {name}", partial(_bridge, nl, side.bridges[name]))
        for each in side.attached.values():
            if each.link:
                changes = side.changes.get(each.name, ())
                yield from attempt(each.title, partial(_node_side, nl, each, changes))
                yield from attempt(each.title_in_pod, partial(_pod_side, nl, each))


def _attempt(journal: Journal, of: str, step: Callable[[], Iterable[str]]) -> Iterator[str]:
    """What a step repaired, which the journal gets, too; or why it did not. of: the object."""
    try:
        for name in step():
            journal.write([Record(time.time(), "restored", name, _CAUSE)])
            yield f"repaired {name}"
    except (KernelError, IpamError, OSError) as error:
        yield f"not repaired: {of}{': ' if of else ''}{error}"


def _settings(nl: Netlink, desired: Desired) -> Iterator[str]:
    """Those of the node; `_device` sets the device's own."""
    of_device = device_sysctls(desired)
    apply_node_settings(nl, [s for s in desired.sysctls if s not in of_device])
    return iter(())


def _device(nl: Netlink, desired: Desired) -> Iterator[str]:
    if desired.device:
        settings = device_sysctls(desired)
        done = ensure_vxlan(nl, desired.device, desired.device_addresses, settings)
        yield from (name_of(change.noun) for change in done.changes)


def _entries(nl: Netlink, desired: Desired) -> Iterator[str]:
    entries = [e for peer in desired.peers.values() for e in peer]
    wanted = by_key([*entries, *desired.own_routes])
    device = desired.device.name if desired.device else None
    changes = list(diff(wanted, read_entries(nl, device)))
    add = [c.desired for c in changes if c.desired is not None]
    remove = [c.observed for c in changes if c.observed is not None]
    failed = {name_of(failure.entry) for failure in change_entries(nl, add, remove)}
    yield from (name for name in (name_of(c.noun) for c in changes) if name not in failed)


def _bridge(nl: Netlink, bridge: Bridge) -> Iterator[str]:
    ensure_bridge(nl, bridge, users=_keep_gateways)
    yield f"link {bridge.name}"


@contextmanager
def _keep_gateways() -> Iterator[IsUsed]:
    """Leave all gateways of a bridge, whether attachments have them or not."""
    yield lambda _gateway: True


def _node_side(nl: Netlink, each: Attached, changes: Changes) -> Iterator[str]:
    if each.link and changes:
        repair(nl, changes, each.link.index)
        yield each.title


def _pod_side(nl: Netlink, each: Attached) -> Iterator[str]:
    pod = open_pod(nl, each.record.netns, each.name) if each.record.complete else None
    if pod is not None:
        with pod:
            done, _left = repair_pod(pod, each.record.plan.pod)
        if done:
            yield each.title_in_pod
