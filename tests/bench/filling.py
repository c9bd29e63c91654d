"""Allocations that are there before anything is measured, as if their pods were attached."""

from __future__ import annotations

import itertools
from ipaddress import ip_network
from pathlib import Path

from ipam.allocator import allocate
from ipam.config import parse_ipam
from ipam.store import Owner, open_store
from tests.bench.contender import IFNAME
from tests.bench.networks import NAME, SUBNETS, Network, podwire_conf
from tests.bench.results import PEER


def fill(network: Network, count: int, label: str, data_dir: Path) -> None:
    """Make so many allocations in a contender's data folder."""
    if not count:
        return
    if label == PEER:
        _fill_host_local(data_dir / NAME, count)
    else:
        _fill_store(network, data_dir, count)


def _owners(count: int) -> list[str]:
    return [f"present-{number:055d}" for number in range(count)]


def _fill_host_local(folder: Path, count: int) -> None:
    """A file for each address, as host-local's disk back end has it, and the last one's note."""
    folder.mkdir()
    hosts = ip_network(SUBNETS[4]).hosts()
    next(hosts)  # the gateway
    for owner, address in zip(_owners(count), itertools.islice(hosts, count), strict=True):
        (folder / str(address)).write_text(f"{owner}\r\n{IFNAME}")
    (folder / "last_reserved_ip.0").write_text(str(address))


def _fill_store(network: Network, data_dir: Path, count: int) -> None:
    conf = parse_ipam(NAME, podwire_conf(network)["ipam"], default_data_dir=data_dir)
    with open_store(data_dir) as store, store.transaction() as tx:
        for owner in _owners(count):
            allocate(tx, conf, Owner(NAME, owner, IFNAME))
