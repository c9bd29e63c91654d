"""What holds a link to its MAC and addresses is found by the link's name."""

from ipaddress import ip_address, ip_network

import pytest

from kernel.describe import name_of
from kernel.netlink.socket import Netlink
from kernel.nftables.ruleset import PARTS
from kernel.nftables.set_messages import change_elements, read_sets
from kernel.nftables.spoof_check import (
    SETS,
    checks_of,
    other_mac_elements,
    source_check_elements,
    spoof_check_elements,
)
from kernel.nftables.table import load, table_changes

ADDRESSES = [ip_address(a) for a in ("10.88.0.2", "fd88::2", "fe80::1")]
PREFIXES = [ip_network(p) for p in ("10.1.0.0/16", "fd01::/64")]


def test_elements_are_found_by_their_link(nl: Netlink) -> None:
    assert checks_of(nl, "pw1") == ()
    load(*PARTS.values())
    mine = [
        *spoof_check_elements("pw1", "02:00:00:00:00:01"),
        *source_check_elements("pw1", ADDRESSES, PREFIXES, bridged=True),
        *source_check_elements("pw1", ADDRESSES, PREFIXES, bridged=False),
    ]
    others = source_check_elements("pw12", ADDRESSES, PREFIXES, bridged=True)
    change_elements(nl, [*mine, *others], ())
    assert set(checks_of(nl, "pw1")) == set(mine)
    assert checks_of(nl, "pw") == ()
    assert read_sets(nl, SETS) == {*mine, *others}
    assert [change for table in PARTS.values() for change in table_changes(nl, table)] == []


@pytest.mark.parametrize(
    ("bridged", "names"),
    [
        (
            False,
            {
                "arp allowed_addresses4 pw1 . 10.88.0.2",
                "arp allowed_prefixes4 pw1 . 10.1.0.0/16",
                "arp checked_sources pw1",
                "inet allowed_addresses4 pw1 . 10.88.0.2",
                "inet allowed_prefixes4 pw1 . 10.1.0.0/16",
                "inet checked_sources pw1",
            },
        ),
        (
            True,
            {
                "bridge allowed_addresses4 pw1 . 10.88.0.2",
                "bridge allowed_prefixes4 pw1 . 10.1.0.0/16",
                "bridge checked_sources pw1",
            },
        ),
    ],
    ids=["routed", "bridged"],
)
def test_a_link_is_checked_for_what_it_may_send(bridged: bool, names: set[str]) -> None:
    elements = source_check_elements("pw1", ADDRESSES[:1], PREFIXES[:1], bridged=bridged)
    words = [name_of(e).removeprefix("element ").split(" of nft table ") for e in elements]
    assert {f"{where.split()[0]} {what}" for what, where in words} == names
    # Allowed before it is checked: what is added in parts is added in this order.
    ordered = sorted(elements, key=lambda e: (e.family, e.set_name))
    assert [e.set_name for e in ordered if e.family == elements[-1].family][-1] == "checked_sources"


def test_a_neighbours_target_is_held_to_the_same_addresses() -> None:
    elements = source_check_elements("pw1", ADDRESSES, PREFIXES, bridged=True)
    keys = {(e.set_name, e.key) for e in elements if e.set_name.startswith("allowed_target")}
    assert keys == {
        (e.set_name.replace("allowed_", "allowed_target_"), e.key)
        for e in elements
        if e.set_name in ("allowed_addresses6", "allowed_prefixes6")
    }
    assert len(keys) == 3


@pytest.mark.parametrize("bridged", [False, True])
def test_one_more_mac(bridged: bool) -> None:
    own = ip_address("fe80::9")
    sources = source_check_elements("pw1", ADDRESSES, bridged=bridged)
    macs = spoof_check_elements("pw1", "02:00:00:00:00:01")
    more = spoof_check_elements("pw1", "02:00:00:00:00:09")
    another = source_check_elements("pw1", [own], bridged=bridged)
    for present, wanted in (
        ((), ()),
        (sources, another),
        (macs, more),
        (macs + sources, more + another),
        (source_check_elements("pw12", ADDRESSES, bridged=bridged), ()),
    ):
        found = other_mac_elements(present, "pw1", "02:00:00:00:00:09", own)
        assert found == wanted
