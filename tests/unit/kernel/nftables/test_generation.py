"""Generations of rules: what is known of tables is true, whoever changes what in between."""

import os
import random
import subprocess
from ipaddress import ip_address, ip_network

import pytest

from kernel.errors import KernelError
from kernel.model import Element
from kernel.netlink.socket import Netlink
from kernel.nftables import generation, masquerade
from kernel.nftables.generation import read_generation
from kernel.nftables.masquerade import (
    NETWORK_SETS,
    Masqueraded,
    apply_masquerade,
    hairpin_element,
    is_masqueraded,
    masquerade_elements,
)
from kernel.nftables.port_mappings import mapping_element
from kernel.nftables.ruleset import (
    HOST_PORTS,
    MASQUERADE,
    PARTS,
    are_parts_whole,
    note_parts_whole,
)
from kernel.nftables.set_messages import change_elements, read_sets, remove_elements
from kernel.nftables.table import load, open_nft, table_changes
from tests.unit.cni_plugin.namespaces import elsewhere

INET = PARTS[MASQUERADE] + PARTS[HOST_PORTS]
NAMES = (MASQUERADE, HOST_PORTS)
NETWORKS = [[Masqueraded((ip_network(f"10.{n}.0.0/16"),))] for n in (1, 2)]
ONE, TWO = (hairpin_element("pw0", ip_address(f"10.0.0.{n}")) for n in (1, 2))


def nft(command: str) -> None:
    subprocess.run(["nft", *command.split()], check=True)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just started, whose namespace is the test's."""
    monkeypatch.setattr(generation, "_known", generation._Known())


@pytest.fixture
def whole(nl: Netlink) -> Netlink:
    """The tables are there, and known to be."""
    load(*PARTS.values())
    note_parts_whole(read_generation(nl), PARTS)
    return nl


def is_whole(nl: Netlink) -> bool:
    return are_parts_whole(read_generation(nl), NAMES)


def test_own_changes_of_elements_are_followed(whole: Netlink) -> None:
    change_elements(whole, [ONE, TWO], [])
    assert is_whole(whole)
    remove_elements(whole, [ONE])
    assert is_whole(whole)
    change_elements(whole, [ONE], [TWO])
    assert is_whole(whole)
    assert read_sets(whole, INET.sets) == {ONE}


@pytest.mark.parametrize("command", ["add table ip other", "flush chain inet podwire postrouting"])
def test_changes_of_others_are_seen(whole: Netlink, command: str) -> None:
    nft(command)
    assert not is_whole(whole)
    change_elements(whole, [ONE], [])
    assert not is_whole(whole)
    assert ONE in read_sets(whole, INET.sets)


def test_what_changes_nothing_hides_no_change(whole: Netlink) -> None:
    """A transaction without effect makes no generation, so the next one may be anybody's."""
    change_elements(whole, [ONE], [])
    change_elements(whole, [ONE], [])
    nft("flush chain inet podwire postrouting")
    assert not is_whole(whole)


@pytest.mark.parametrize("shared", [False, True])
def test_forked_processes(nl: Netlink, shared: bool) -> None:
    """What one compared the others know only where they share it."""
    load(*PARTS.values())
    if shared:
        generation.share_with_forked()
    pid = os.fork()
    if pid == 0:
        note_parts_whole(read_generation(nl), NAMES)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert is_whole(nl) == shared


def test_a_key_that_is_taken_is_refused(whole: Netlink) -> None:
    one, two = (mapping_element("tcp", None, 80, ip_address(f"10.0.0.{n}"), 80) for n in (1, 2))
    change_elements(whole, [one], [])
    with pytest.raises(KernelError):
        change_elements(whole, [two], [])
    assert is_whole(whole)
    assert one in read_sets(whole, INET.sets)


def test_parts_are_known_each_for_itself(nl: Netlink) -> None:
    load(*PARTS.values())
    number = read_generation(nl)
    note_parts_whole(number, NAMES)
    assert are_parts_whole(number, NAMES)
    assert not are_parts_whole(number, [*NAMES, "spoof check (bridge)"])
    note_parts_whole(number, ["spoof check (bridge)"])
    assert are_parts_whole(number, [*NAMES, "spoof check (bridge)"])
    assert not are_parts_whole(number + 1, NAMES)


def test_another_namespace_is_not_known(whole: Netlink) -> None:
    number = read_generation(whole)
    with elsewhere(), open_nft() as other:
        assert not are_parts_whole(number, NAMES)
        note_parts_whole(number + 1, NAMES)
        load(INET)
        change_elements(other, [ONE], [])
    assert are_parts_whole(number, NAMES)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_known_is_true(whole: Netlink, seed: int) -> None:
    """Random changes of podwire's and of others: never is a table said to be whole that is not."""
    order = random.Random(seed)
    present: set[Element] = set()
    known = 0
    for _ in range(60):
        element = order.choice([ONE, TWO])
        act = order.choice(["add", "add", "remove", "damage", "other", "repair"])
        if act == "add":
            change_elements(whole, [element], [])
            present.add(element)
        elif act == "remove":
            remove_elements(whole, [element])
            present.discard(element)
        elif act == "damage":
            nft("flush chain inet podwire host_ports")
        elif act == "other":
            nft(f"add table ip other{order.randrange(99)}")
        else:
            load(INET)
            note_parts_whole(read_generation(whole), NAMES)
        if is_whole(whole):
            known += 1
            assert table_changes(whole, INET) == ()
    assert known > 5
    assert read_sets(whole, INET.sets) == present


def test_known_intervals_are_not_read(whole: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_masquerade(NETWORKS[0])
    assert is_masqueraded(NETWORKS[0])
    change_elements(whole, [ONE], [])
    with monkeypatch.context() as patch:
        patch.setattr(masquerade, "masquerade_changes", lambda _networks: pytest.fail("read"))
        assert is_masqueraded(NETWORKS[0])
    nft("flush set inet podwire masquerade4")
    assert not is_masqueraded(NETWORKS[0])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_known_of_intervals_is_true(whole: Netlink, seed: int) -> None:
    order = random.Random(seed)
    for _ in range(60):
        networks = order.choice(NETWORKS)
        act = order.choice(["add", "remove", "apply", "damage", "look", "look"])
        if act == "add":
            change_elements(whole, [ONE], [])
        elif act == "remove":
            remove_elements(whole, [ONE])
        elif act == "apply":
            apply_masquerade(networks)
        elif act == "damage":
            nft(f"flush set inet podwire {order.choice(['masquerade4', 'internal4'])}")
        expected = read_sets(whole, NETWORK_SETS) == masquerade_elements(networks)
        assert is_masqueraded(networks) == expected
