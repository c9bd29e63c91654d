"""What a network's record says of the sources that are masqueraded."""

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.masquerade_record import single_ranges
from cni_plugin.network_rules import add_prefixes
from ipam.store import open_store
from kernel.nftables.masquerade import AddressRange

PREFIXES = (ip_network("10.0.0.0/24"),)


def ends(text: str) -> AddressRange:
    first, _, last = text.partition("-")
    return ip_address(first), ip_address(last or first)


@pytest.mark.parametrize(
    ("added", "recorded"),
    [
        ([["10.0.0.5-10.0.0.9"]], ["10.0.0.5-10.0.0.9"]),
        ([["10.0.0.5-10.0.0.9", "10.0.0.6"]], ["10.0.0.5-10.0.0.9"]),
        ([["10.0.0.6"], ["10.0.0.5-10.0.0.9"]], ["10.0.0.5-10.0.0.9"]),
        ([["10.0.0.4"], ["10.0.0.5-10.0.0.9"]], ["10.0.0.4-10.0.0.4", "10.0.0.5-10.0.0.9"]),
        ([["10.0.0.5-10.0.0.9", "10.0.0.8"], ["10.0.0.2"]],
         ["10.0.0.5-10.0.0.9", "10.0.0.2-10.0.0.2"]),
        ([["10.0.0.5"], ["fd00::5"]], ["10.0.0.5-10.0.0.5", "fd00::5-fd00::5"]),
    ],
)  # fmt: skip
def test_sources_add_up(tmp_path: Path, added: list[list[str]], recorded: list[str]) -> None:
    with open_store(tmp_path) as store, store.transaction() as tx:
        for each in added:
            add_prefixes(tx, "net", PREFIXES, map(ends, each), ())
        record = json.loads(tx.network("net") or "")
    assert [*map("-".join, record["sources"])] == recorded


@pytest.mark.parametrize("before", [[], ["10.0.0.5"], ["10.0.0.1-10.0.0.254"]])
def test_all_addresses_of_the_prefixes_are_no_ranges(tmp_path: Path, before: list[str]) -> None:
    with open_store(tmp_path) as store, store.transaction() as tx:
        for each in (before, ["10.0.0.1-10.0.0.254"]):
            add_prefixes(tx, "net", PREFIXES, map(ends, each), ())
        assert json.loads(tx.network("net") or "") == ["10.0.0.0/24"]
        add_prefixes(tx, "net", PREFIXES, [ends("10.0.0.200-10.0.0.254")], ())
        assert json.loads(tx.network("net") or "")["sources"] == [["10.0.0.200", "10.0.0.254"]]


def test_a_subnet_more_leaves_the_others(tmp_path: Path) -> None:
    """Families differ from pod to pod, and pod CIDRs come and go."""
    all_of_it, other = [ends("10.0.0.1-10.0.0.254")], (ip_network("fd00::/64"),)
    with open_store(tmp_path) as store, store.transaction() as tx:
        add_prefixes(tx, "net", PREFIXES, all_of_it, ())
        add_prefixes(tx, "net", other, [ends("fd00::1-fd00::ffff:ffff:ffff:ffff")], ())
        assert json.loads(tx.network("net") or "") == ["10.0.0.0/24", "fd00::/64"]
        add_prefixes(tx, "net", PREFIXES, all_of_it, ())
        assert json.loads(tx.network("net") or "") == ["10.0.0.0/24", "fd00::/64"]
        add_prefixes(tx, "net", other, [ends("fd00::5-fd00::6")], ())
        record = json.loads(tx.network("net") or "")
    assert record["sources"] == [["10.0.0.0", "10.0.0.255"], ["fd00::5", "fd00::6"]]


@pytest.mark.parametrize("earlier", [["10.0.0.0/24"], {"prefixes": ["10.0.0.0/24"], "kept": []}])
def test_a_record_of_an_earlier_version_has_none(tmp_path: Path, earlier: Any) -> None:
    with open_store(tmp_path) as store, store.transaction() as tx:
        tx.put_network("net", json.dumps(earlier))
        add_prefixes(tx, "net", PREFIXES, single_ranges([ip_address("10.0.0.7")]), ())
        record = json.loads(tx.network("net") or "")
    assert record["sources"] == [["10.0.0.7", "10.0.0.7"]]
