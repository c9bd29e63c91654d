"""Objects that others wrote: whatever is in them is a claim, or refused in words."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Node
from daemon.sources.kubernetes.objects import (
    NodeRecord,
    UnusableObject,
    is_rendered,
    parse_claim,
    parse_node_record,
    render,
)

RANGES = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48"))
NODE = Node(
    "a",
    (ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
)


def claim(**spec: object) -> dict[str, Any]:
    whole = {"addresses": ["192.0.2.1"], "podCIDRs": ["10.244.1.0/24"], **spec}
    return {"metadata": {"name": "a"}, "spec": whole}


def node_object(**spec: object) -> dict[str, Any]:
    return {
        "metadata": {"name": "a", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDRs": ["10.244.1.0/24"], **spec},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }


def test_what_is_written_is_read() -> None:
    thing = json.loads(json.dumps(render(NODE, "u-1", "podwire")))
    assert parse_claim(thing, RANGES).node == NODE
    assert is_rendered(thing, render(NODE, "u-1", "podwire"))
    [owner] = thing["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u-1"}


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {}},
        {"metadata": None},
        {"metadata": {"ownerReferences": None}},
        {"metadata": {"ownerReferences": [{"uid": "u-1"}]}},
        {"metadata": {"ownerReferences": [
            *render(NODE, "u-1", "podwire")["metadata"]["ownerReferences"],
            *render(NODE, "u-2", "podwire")["metadata"]["ownerReferences"],
        ]}},
    ],
)  # fmt: skip
def test_what_others_changed_is_seen(change: dict[str, Any]) -> None:
    wanted = render(NODE, "u-1", "podwire")
    assert not is_rendered({**wanted, **change}, wanted)
    assert not is_rendered(None, wanted)


def test_what_others_added_is_theirs() -> None:
    wanted = render(NODE, "u-1", "podwire")
    owners = [{"uid": "x"}, *wanted["metadata"]["ownerReferences"]]
    metadata = {**wanted["metadata"], "labels": {"a": "b"}, "ownerReferences": owners}
    assert is_rendered({**wanted, "metadata": metadata}, wanted)


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (None, "has no name"),
        ([], "has no name"),
        ({"metadata": []}, "its metadata is no mapping"),
        ({"metadata": {"name": 5}}, "has no name"),
        ({"metadata": {"name": "../etc"}}, "its name '../etc' must be a DNS subdomain"),
        ({"metadata": {"name": "a"}}, "has no address"),
        ({"metadata": {"name": "a"}, "spec": "x"}, "its spec is no mapping"),
        (claim(addresses=None), "has no address"),
        (claim(addresses="192.0.2.1"), "its addresses are no list"),
        (claim(addresses=[{}]), "its address is no text"),
        (claim(addresses=["192.0.2.1", "192.0.2.2"]), "has two addresses of one family"),
        (claim(addresses=["192.0.2.1"] * 3), "has 3 addresses, more than 2"),
        (claim(addresses=["127.0.0.1"]), "its address '127.0.0.1' must be the address of one"),
        (claim(addresses=["fe80::1%eth0"]), "its address 'fe80::1%eth0' must be an address"),
        (claim(addresses=["192.0.2.1; reboot"]), "its address '192.0.2.1; reboot' must be an"),
        (claim(podCIDRs={}), "its podCIDRs are no list"),
        (claim(podCIDRs=["10.244.1.0/24"] * 17), "has 17 podCIDRs, more than 16"),
    ],
)
def test_what_is_no_claim_is_refused(thing: object, why: str) -> None:
    with pytest.raises(UnusableObject) as caught:
        parse_claim(thing, RANGES)
    assert str(caught.value).startswith(why)


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("10.9.0.0/24", "its pod CIDR 10.9.0.0/24 is outside of clusterCIDRs"),
        ("10.0.0.0/8", "its pod CIDR 10.0.0.0/8 is outside of clusterCIDRs"),
        ("0.0.0.0/0", "its pod CIDR '0.0.0.0/0' must not overlap"),
        ("::/0", "its pod CIDR '::/0' must not overlap"),
        ("2001:db8::/64", "its pod CIDR 2001:db8::/64 is outside of clusterCIDRs"),
        ("10.244.2.1/24", "its pod CIDR '10.244.2.1/24' has host bits set"),
        ("10.244.2.1/32", "its pod CIDR '10.244.2.1/32' is too small for pods"),
        ("10.244.1.128/25", "its pod CIDR 10.244.1.128/25 overlaps its 10.244.1.0/24"),
        ("10.244.2.0/24\n", "its pod CIDR '10.244.2.0/24\\n' must be a prefix"),
        ("x" * 9000, f"its pod CIDR '{'x' * 79}... must be a prefix"),
        (None, "its pod CIDR is no text"),
        (["10.244.2.0/24"], "its pod CIDR is no text"),
    ],
)
def test_a_prefix_that_cannot_be_used_is_left_out_alone(cidr: object, why: str) -> None:
    found = parse_claim(claim(podCIDRs=["10.244.1.0/24", cidr, "10.244.3.0/24"]), RANGES)
    assert list(map(str, found.node.pod_cidrs)) == ["10.244.1.0/24", "10.244.3.0/24"]
    [told] = found.left_out
    assert told.startswith(why)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["10.244.1.0/24", "192.0.2.1", "a", "InternalIP", "fd00:10:244::/64"]),
    lambda v: (
        st.lists(v, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("metadata", "name", "uid", "spec", "addresses", "podCIDRs", "podCIDR"),
                    *("status", "type", "address", "creationTimestamp"),
                ]
            ),
            v,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_anything_is_read_or_refused(thing: object) -> None:
    with suppress(UnusableObject):
        found = parse_claim(thing, RANGES)
        assert found.node.addresses
        assert all(any(_within(p, r) for r in RANGES) for p in found.node.pod_cidrs)
    with suppress(UnusableObject):
        authority = parse_node_record(thing, RANGES)
        assert authority.uid
        assert all(any(_within(p, r) for r in RANGES) for p in authority.pod_cidrs)


@given(st.lists(JSON), st.lists(JSON))
def test_any_spec_is_read_or_refused(addresses: list[object], cidrs: list[object]) -> None:
    with suppress(UnusableObject):
        found = parse_claim(claim(addresses=addresses, podCIDRs=cidrs), RANGES)
        assert len(found.node.pod_cidrs) + len(found.left_out) == len(cidrs)
    thing = node_object(podCIDRs=cidrs)
    thing["status"]["addresses"] = addresses
    with suppress(UnusableObject):
        assert parse_node_record(thing, RANGES).name == "a"


def _within(prefix: Any, whole: Any) -> bool:
    return prefix.version == whole.version and bool(prefix.subnet_of(whole))


def test_a_node_is_read() -> None:
    thing = node_object(podCIDRs=["10.244.1.0/24", "fd00:10:244:1::/64"])
    thing["status"]["addresses"] = [
        {"type": "Hostname", "address": "192.0.2.77"},
        {"type": "InternalIP", "address": "127.0.0.1"},
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "ExternalIP", "address": "198.51.100.1"},
        {"type": "InternalIP", "address": "192.0.2.2"},
        {"type": "InternalIP", "address": "2001:db8::1"},
    ]
    found = parse_node_record(thing, RANGES)
    internal = tuple(map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1")))
    external = (ip_address("198.51.100.1"),)
    created = "2026-01-01T00:00:00Z"
    expected = NodeRecord("a", "u", NODE.addresses, NODE.pod_cidrs, (), internal, external, created)
    assert found == expected
    assert found.node == NODE
    # A daemon may publish any of its Node's internal addresses, see OwnAddress.
    assert found.covers(Node("a", internal[1:], ()))
    assert not found.covers(Node("a", external, ()))


@pytest.mark.parametrize("spec", [{"podCIDRs": None}, {"podCIDRs": [], "podCIDR": ""}])
def test_a_node_may_have_no_pod_cidrs_yet(spec: dict[str, object]) -> None:
    assert parse_node_record(node_object(**spec), RANGES).pod_cidrs == ()


def test_a_node_of_old_has_one_pod_cidr() -> None:
    found = parse_node_record(node_object(podCIDRs=None, podCIDR="10.244.1.0/24"), RANGES)
    assert found.pod_cidrs == NODE.pod_cidrs[:1]


def test_pod_cidrs_of_a_node_outside_the_ranges_are_left_out() -> None:
    found = parse_node_record(node_object(podCIDRs=["10.9.0.0/24"]), RANGES)
    assert found.pod_cidrs == ()
    assert found.left_out == ("its pod CIDR 10.9.0.0/24 is outside of clusterCIDRs",)


@pytest.mark.parametrize("uid", [None, "", 5, "x\n", "x" * 200])
def test_a_node_has_a_uid(uid: object) -> None:
    thing = node_object()
    thing["metadata"]["uid"] = uid
    with pytest.raises(UnusableObject, match="has no uid"):
        parse_node_record(thing, RANGES)


def test_an_authority_covers_what_it_has() -> None:
    found = NodeRecord("a", "u", NODE.addresses, NODE.pod_cidrs)
    assert found.covers(NODE)
    assert found.covers(Node("a", NODE.addresses[:1], ()))
    assert not found.covers(Node("a", (ip_address("192.0.2.9"),), ()))
    assert not found.covers(Node("a", (), (ip_network("10.244.0.0/16"),)))
