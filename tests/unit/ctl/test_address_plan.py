"""Sizes of address plans."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.address_plan import FamilyPlan, NoPlan, find_overlaps, plan_family, pods_of, suggest
from kernel.model import IPNetwork

Networks = list[tuple[IPNetwork, str]]


def test_the_plan_of_the_talk() -> None:
    assert plan_family(4, 120, 60) == FamilyPlan(4, 26, 19, 61, 128)
    assert plan_family(6, 120, 60).cluster_length == 57


@given(st.integers(1, 20_000), st.integers(1, 500))
@settings(max_examples=60)
def test_it_is_the_smallest_that_does(nodes: int, pods: int) -> None:
    try:
        plan = plan_family(4, nodes, pods)
    except NoPlan:
        assert nodes * pods > 1 << 20
        return
    assert plan.pods_max >= pods
    assert plan.nodes_max >= nodes
    assert plan.node_length == 30 or pods_of(4, plan.node_length + 1) < pods
    assert plan.nodes_max < 2 * nodes or nodes == 1


def test_of_a_given_prefix_the_room_is_told() -> None:
    assert plan_family(4, 120, 60, cluster_length=16).nodes_max == 1024
    assert plan_family(4, 120, 60, cluster_length=20).nodes_max == 64
    with pytest.raises(NoPlan, match="no room for the /25 of one node"):
        plan_family(4, 1, 110, cluster_length=28)
    with pytest.raises(NoPlan, match="need more than a /8"):
        plan_family(4, 1 << 20, 110)


NETWORKS = st.lists(
    st.tuples(st.integers(0, (1 << 32) - 1), st.integers(1, 32)).map(
        lambda n: (ip_network(n, strict=False), "eth0")
    ),
    max_size=8,
)


@given(NETWORKS, st.integers(9, 30))
@settings(max_examples=60)
def test_what_is_suggested_overlaps_nothing(networks: Networks, length: int) -> None:
    found = suggest(4, length, networks)
    if found:
        prefix = ip_network(found)
        assert prefix.prefixlen == length
        assert not prefix.is_global
        assert find_overlaps(prefix, networks) == []


def test_overlaps_name_network_and_link() -> None:
    networks: Networks = [
        (ip_network("10.244.7.0/24"), "docker0"),
        (ip_network("0.0.0.0/0"), "eth0"),
    ]
    assert find_overlaps(ip_network("10.244.0.0/16"), networks) == ["10.244.7.0/24 on docker0"]
    assert find_overlaps(ip_network("fd00::/48"), networks) == []
    assert suggest(4, 19, networks) == "10.0.0.0/19"
    assert suggest(6, 57, networks) == "fd00:10:244::/57"
