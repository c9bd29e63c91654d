"""What routing is measured with: the list of nodes, entries that follow from it, their events."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from daemon.sources.static import parse_nodes
from kernel.diff import key_of
from kernel.model import FdbEntry, Neighbour, Route
from tests.bench.routing.fleet import entries_of, list_node, list_peers, write_listing
from tests.bench.routing.peers import CASE
from tests.bench.routing.watch import Change, completed
from tests.bench.sizes import PEERS


def test_the_list_is_one_that_the_daemon_takes(tmp_path: Path) -> None:
    path, nodes = tmp_path / "nodes.yaml", [list_node(0, "192.0.2.11"), *list_peers(300)]
    write_listing(path, nodes)
    taken = parse_nodes(path.read_bytes(), path).nodes
    assert [(n.name, n.addresses, n.pod_cidrs) for n in taken] == [
        (n.name, (ip_address(n.address),), (n.prefix,)) for n in nodes
    ]


def test_every_peer_has_entries_of_its_own_in_the_order_of_need() -> None:
    entries = entries_of(list_peers(PEERS))
    assert len({key_of(entry) for entry in entries}) == 3 * PEERS
    kinds = [type(entry) for entry in entries]
    assert kinds == [FdbEntry] * PEERS + [Neighbour] * PEERS + [Route] * PEERS
    assert CASE.startswith("5,000")


def test_all_have_come_when_the_last_one_has() -> None:
    fdb, neighbour, route = list_node(7).entries
    changed = replace(fdb, dst=ip_address("192.0.2.1"))
    changes = [
        Change(1.0, False, fdb),
        Change(2.0, False, neighbour),
        Change(3.0, False, changed),
        Change(4.0, True, neighbour),
        Change(5.0, False, route),
        Change(6.0, False, neighbour),
    ]
    assert completed(changes, 3) == 6.0
    with pytest.raises(ValueError, match="2 of 3"):
        completed(changes[:5], 3)
