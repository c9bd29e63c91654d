"""Repairs that `doctor --fix` makes: what the daemon would do, while it does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from ctl.doctor.observed import Observed
from daemon.journal import Journal, Record
from daemon.model import Desired
from daemon.options import NodeFiles
from daemon.routing.node_side import NodeSideReader
from daemon.routing.sysctls import device_sysctls
from ipam.errors import IpamError
from kernel.conntrack import forget_pods
from kernel.describe import name_of
from kernel.diff import by_key, diff
from kernel.errors import KernelError
from kernel.forwarding import apply_node_settings
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
    if seen.desired and not (found and found.running):
        yield from _repair_all(seen.desired, files)


def _repair_all(desired: Desired, files: NodeFiles) -> Iterator[str]:
    """In the daemon's order. Raises nothing: what fails stays a finding."""
    with Netlink() as nl, closing(Journal(files.journal, files.journal_bytes)) as journal:
        steps: tuple[Callable[[], Iterator[str]], ...] = (
            lambda: _settings(nl, desired),
            lambda: _device(nl, desired),
            lambda: _entries(nl, desired),
            lambda: _attachments(nl, files),
        )
        for step in steps:
            try:
                for name in step():
                    journal.write([Record(time.time(), "restored", name, _CAUSE)])
                    yield f"repaired {name}"
            except (KernelError, IpamError, OSError) as error:
                yield f"not repaired: {error}"


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


def _attachments(nl: Netlink, files: NodeFiles) -> Iterator[str]:
    side = NodeSideReader(nl, files.data_dir).read(None, None)
    for each in side.attached.values():
        if each.link is None:
            continue
        if changes := side.changes.get(each.name):
            repair(nl, changes, each.link.index)
            yield each.title
        pod = open_pod(nl, each.record.netns, each.name) if each.record.complete else None
        if pod is not None:
            with pod:
                done, _left = repair_pod(pod, each.record.plan.pod)
            if done:
                yield each.title_in_pod
