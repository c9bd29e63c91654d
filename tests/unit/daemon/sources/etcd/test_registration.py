"""What a node writes to be registered, and to leave: only what differs, and only if unchanged."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from daemon.model import Node
from daemon.sources.etcd.cluster_view import EtcdView
from daemon.sources.etcd.keys import (
    Keys,
    KeyValue,
    LengthKey,
    NodeKey,
    Place,
    SubnetKey,
    Transaction,
    encode_holder,
    encode_length,
    encode_record,
)
from daemon.sources.etcd.registration import check_lengths, plan_registration, plan_withdrawal
from daemon.sources.etcd.subnet_pool import make_pool
from daemon.sources.remote import SourceError

KEYS = Keys("/podwire")
RANGE = ip_network("10.244.0.0/16")
ONE, TWO = ip_network("10.244.1.0/24"), ip_network("10.244.2.0/24")
ME = Node("me", (ip_address("192.0.2.1"),), (ONE,))
LEASE, OTHER = 7, 8


def key(place: Place) -> bytes:
    return KEYS.write(place)


def record(node: Node = ME, lease: int = LEASE, machine: str = "m") -> KeyValue:
    return KeyValue(key(NodeKey(node.name)), encode_record(node, machine), 3, 3, lease)


def holder(subnet: Any, name: str = "me", lease: int = LEASE, modified: int = 4) -> KeyValue:
    return KeyValue(key(SubnetKey(subnet)), encode_holder(name), modified, modified, lease)


LENGTH = KeyValue(key(LengthKey(4)), encode_length(24), 2, 2)


def view(*pairs: KeyValue) -> EtcdView:
    made = EtcdView(KEYS, (RANGE,), "me")
    made.replace_all(pairs)
    return made


def text(encoded: str) -> str:
    return base64.b64decode(encoded).decode().removeprefix("/podwire/v1/")


def conditions(todo: Transaction) -> set[tuple[str, str, str]]:
    """The key, the target and the value of each condition."""
    fields = {"CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value"}
    return {(text(c["key"]), c["target"], c[fields[c["target"]]]) for c in todo.conditions}


def operations(todo: Transaction) -> Iterator[tuple[str, str, str]]:
    """Each key, with its new value and lease; without both where it is deleted."""
    for operation in todo.operations:
        if put := operation.get("request_put"):
            yield text(put["key"]), text(put["value"]), put["lease"]
        else:
            yield text(operation["request_delete_range"]["key"]), "", ""


def written(todo: Transaction) -> set[str]:
    return {key for key, _, _ in operations(todo)}


def test_a_new_node_writes_all_its_keys_if_none_exists() -> None:
    todo = plan_registration(KEYS, view(), ME, LEASE, "m")
    subnet, node, length = "subnets/ipv4/10.244.1.0-24", "nodes/me", "lengths/ipv4"
    assert conditions(todo) == {(k, "CREATE", "0") for k in (subnet, node, length)}
    assert set(operations(todo)) == {
        (subnet, "me", "7"),
        (node, encode_record(ME, "m").decode(), "7"),
        (length, "24", "0"),
    }


def test_a_registered_node_writes_nothing() -> None:
    todo = plan_registration(KEYS, view(record(), holder(ONE), LENGTH), ME, LEASE, "m")
    assert (todo.operations, todo.conditions) == ([], [])


def test_keys_on_an_earlier_lease_move_to_the_new_one() -> None:
    todo = plan_registration(KEYS, view(record(), holder(ONE), LENGTH), ME, OTHER, "m")
    assert {lease for _, _, lease in operations(todo)} == {"8"}
    assert written(todo) == {"subnets/ipv4/10.244.1.0-24", "nodes/me"}
    value = base64.b64encode(b"24").decode()
    assert conditions(todo) == {
        ("subnets/ipv4/10.244.1.0-24", "MOD", "4"),
        ("nodes/me", "MOD", "3"),
        ("lengths/ipv4", "VALUE", value),
    }


def test_a_reservation_stays_without_lease() -> None:
    todo = plan_registration(KEYS, view(holder(ONE, lease=0), LENGTH), ME, LEASE, "m")
    assert written(todo) == {"nodes/me"}


def test_a_key_that_was_overwritten_is_restored() -> None:
    seen = view(record(), holder(ONE), LENGTH)
    seen.put(KeyValue(key(SubnetKey(ONE)), b"thief", 4, 9, LEASE))
    todo = plan_registration(KEYS, seen, ME, LEASE, "m")
    assert list(operations(todo)) == [("subnets/ipv4/10.244.1.0-24", "me", "7")]
    assert ("subnets/ipv4/10.244.1.0-24", "MOD", "9") in conditions(todo)


@pytest.mark.parametrize(("lease", "is_returned"), [(LEASE, True), (OTHER, True), (0, False)])
def test_a_subnet_that_is_not_used_any_more_is_returned(lease: int, is_returned: bool) -> None:
    pairs = record(), holder(ONE), holder(TWO, lease=lease, modified=6), LENGTH
    todo = plan_registration(KEYS, view(*pairs), ME, LEASE, "m")
    returned = ("subnets/ipv4/10.244.2.0-24", "", "")
    assert (returned in set(operations(todo))) == is_returned
    assert (("subnets/ipv4/10.244.2.0-24", "MOD", "6") in conditions(todo)) == is_returned


def test_no_key_of_another_node_is_written() -> None:
    pairs = record(), holder(ONE), holder(TWO, "other", OTHER), LENGTH
    assert plan_registration(KEYS, view(*pairs), ME, LEASE, "m").operations == []


def test_another_length_than_the_clusters_is_refused() -> None:
    pools = (make_pool([RANGE], 26),)
    check_lengths(KEYS, view(), pools)
    check_lengths(KEYS, view(LENGTH), (make_pool([RANGE], 24),))
    with pytest.raises(SourceError, match=r"prefixLength\.ipv4 is 26 here.*'24'.*lengths/ipv4"):
        check_lengths(KEYS, view(LENGTH), pools)


def test_a_node_that_leaves_returns_what_is_on_its_leases() -> None:
    mine, theirs, reserved = holder(ONE), holder(TWO, lease=OTHER), ip_network("10.244.3.0/24")
    seen = view(record(), mine, theirs, holder(reserved, lease=0))
    todo, subnets = plan_withdrawal(KEYS, seen, "me", {LEASE}, record())
    assert subnets == [ONE]
    assert written(todo) == {"subnets/ipv4/10.244.1.0-24", "nodes/me"}
    assert conditions(todo) == {
        ("subnets/ipv4/10.244.1.0-24", "MOD", "4"),
        ("nodes/me", "MOD", "3"),
    }
    todo, subnets = plan_withdrawal(KEYS, seen, "me", {LEASE, OTHER}, None)
    assert subnets == [ONE, TWO]
    assert "nodes/me" not in written(todo)


def test_what_leaves_is_no_other_nodes() -> None:
    seen = view(holder(ONE, "other"), holder(TWO))
    seen.put(KeyValue(key(SubnetKey(TWO)), b"thief", 4, 9, LEASE))
    assert plan_withdrawal(KEYS, seen, "me", {LEASE}, None)[1] == []
