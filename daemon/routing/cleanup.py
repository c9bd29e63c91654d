"""Removes for good what the daemon leaves in place when it ends, so that pods keep working.

In this order: the CNI configuration, so that no more pods are added; routes to other nodes; the
VXLAN device with its entries; nftables rules; settings of the kernel, unless pods need them. Only
what carries podwire's mark is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.network_rules import marked_links
from cni_plugin.reclaim import reclaim_in_all_stores
from cni_plugin.rule_repair import remove_unneeded_tables
from daemon.config import ORIGINAL_SYSCTLS
from daemon.journal import Record
from daemon.routing.backends.vxlan import DEVICE_ALIAS
from daemon.routing.conflist import remove_conflist
from daemon.routing.original_sysctls import restore_originals
from ipam.errors import IpamError
from kernel.describe import name_of, state_of
from kernel.errors import KernelError
from kernel.netlink.socket import open_netlink
from kernel.nftables.dns_counters import stop_counting_dns
from kernel.nftables.masquerade import ensure_elements
from kernel.nftables.peer_filter import remove_peer_filter
from kernel.nftables.policy import TABLE as POLICY_TABLE
from kernel.nftables.policy import remove_policy
from kernel.nftables.ruleset import FAMILIES, NODE_SETS
from kernel.nftables.table import TABLE, open_nft, table_is_present
from kernel.read import read_links
from kernel.routes import change_entries, read_entries
from kernel.vxlan import remove_vxlan


def clean_up(
    conflist: Path, data_dir: Path, cause: str, record: Callable[[Record], None]
) -> tuple[str, ...]:
    """Remove all of it from the calling thread's node; what could not be removed, and why.

    cause: of the records. record: called for each object that was removed. One that is missing is
    no fault.
    """
    steps: tuple[Callable[[], Iterator[Record]], ...] = (
        partial(_remove_conflist, conflist),
        _remove_routes,
        _remove_devices,
        _remove_counters,
        _remove_filter,
        _remove_policy,
        partial(_remove_rules, data_dir),
        partial(_restore_sysctls, data_dir / ORIGINAL_SYSCTLS),
    )
    faults = []
    for step in steps:
        try:
            for removed in step():
                record(replace(removed, cause=cause))
        except (KernelError, IpamError, OSError) as error:
            faults.append(str(error))
    return tuple(faults)


def _record(name: str, before: str = "") -> Record:
    return Record(time.time(), "removed", name, "", before)


def _remove_conflist(path: Path) -> Iterator[Record]:
    if remove_conflist(path):
        yield _record(f"file {path}")


def _remove_routes() -> Iterator[Record]:
    with open_netlink() as nl:
        routes = list(read_entries(nl, None).values())
        failures = change_entries(nl, (), routes)
    failed = {failure.entry for failure in failures}
    yield from (_record(name_of(r), state_of(r)) for r in routes if r not in failed)
    for failure in failures:
        raise KernelError("remove", name_of(failure.entry), failure.errno, failure.hint)


def _remove_devices() -> Iterator[Record]:
    with open_netlink() as nl:
        for link in read_links(nl):
            if link.alias == DEVICE_ALIAS and remove_vxlan(nl, link.name):
                yield _record(f"link {link.name}", f"mac {link.mac} mtu {link.mtu}")


def _remove_counters() -> Iterator[Record]:
    if stop_counting_dns():
        yield _record("nftables chain dns", f"counters of DNS in table inet {TABLE}")


def _remove_filter() -> Iterator[Record]:
    if remove_peer_filter():
        yield _record("nftables chain peers", f"the filter of peers in table inet {TABLE}")


def _remove_policy() -> Iterator[Record]:
    if remove_policy():
        yield _record(f"nftables table inet {POLICY_TABLE}", "the rules of policies")


def _ignore(_line: str) -> None:
    """What is freed is no object of the node's."""


def _remove_rules(data_dir: Path) -> Iterator[Record]:
    # First the members: the DEL of the node's last pod leaves the table where there are any.
    if ensure_elements(frozenset(), NODE_SETS):
        yield _record("nftables members", f"the cluster's addresses in table inet {TABLE}")
    # Another plugin may have deleted pods that podwire had made.
    reclaim_in_all_stores(data_dir, DEFAULT_INDEX, _ignore)
    for name in remove_unneeded_tables(data_dir):
        yield _record(f"nftables {name}")


def _restore_sysctls(file: Path) -> Iterator[Record]:
    with open_netlink() as nl, open_nft() as nft:
        if marked_links(nl) or any(table_is_present(nft, f) for f in FAMILIES):
            return  # pods are left
    for setting, ours in restore_originals(file):
        yield replace(_record(name_of(setting), ours), action="changed", after=setting.value)
