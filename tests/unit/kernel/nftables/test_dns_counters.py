"""DNS counters: there with the table, whole again after damage, gone at once."""

import subprocess

import pytest

from kernel.netlink.socket import Netlink
from kernel.nftables.dns_counters import PART, TRACKED_PART, count_dns, stop_counting_dns
from kernel.nftables.ruleset import (
    HOST_PORTS,
    MASQUERADE,
    NODE,
    PARTS,
    load_parts,
    remove_empty_parts,
)
from kernel.nftables.table import load, table_changes


def nft(command: str) -> str:
    done = subprocess.run(["nft", *command.split()], check=True, capture_output=True, text=True)
    return done.stdout


def test_nothing_is_counted_without_a_table(nl: Netlink) -> None:
    assert count_dns() is None
    assert stop_counting_dns() is False
    assert nft("list ruleset") == ""


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet podwire dns",
        "delete chain inet podwire dns",
        "add rule inet podwire dns accept",
    ],
)
def test_counting_begins_again_after_damage(nl: Netlink, damage: str) -> None:
    load(NODE)
    before = nft("list ruleset")
    assert count_dns() == (0, 0)
    assert table_changes(nl, PART) == ()
    nft(damage)
    assert table_changes(nl, PART) != ()
    assert count_dns() == (0, 0)
    assert table_changes(nl, PART) == ()
    assert stop_counting_dns() is True
    assert nft("list ruleset") == before


@pytest.mark.parametrize(
    "damage", ["flush chain inet podwire dns", "delete chain inet podwire dns"]
)
def test_what_is_left_of_it_goes(nl: Netlink, damage: str) -> None:
    load(NODE)
    before = nft("list ruleset")
    count_dns()
    nft(damage)
    assert stop_counting_dns() is True
    assert nft("list ruleset") == before
    assert stop_counting_dns() is False


@pytest.mark.parametrize("name", [HOST_PORTS, MASQUERADE])
def test_it_asks_for_connections_only_while_they_are_tracked_anyway(nl: Netlink, name: str) -> None:
    load(NODE)
    assert count_dns() == (0, 0)
    assert table_changes(nl, PART) == ()
    load_parts(nl, [name])
    assert table_changes(nl, PARTS[name]) == ()
    assert table_changes(nl, TRACKED_PART) == ()
    remove_empty_parts(nl, [name])
    assert table_changes(nl, PART) == ()
    assert "ct " not in nft("list ruleset")
