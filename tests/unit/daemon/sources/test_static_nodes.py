"""nodes.yaml: what is taken, and every way of getting it wrong."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.yaml import FileFault
from daemon.model import Node, Snapshot, overlap, parse_node_name
from daemon.sources.static import parse_nodes
from kernel.model import IPNetwork
from tests.unit.daemon.clusters import node

GOOD = """\
clusterCIDRs: [10.244.0.0/16]
nodes:
- name: node-1
  addresses: [192.0.2.1, "2001:db8::1"]
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
- name: 7
  addresses:
  - 2001:db8::7
  podCIDRs: []
"""


def parse(text: str) -> Snapshot:
    return parse_nodes(text.encode(), "nodes.yaml")


def entry(**keys: str) -> str:
    """A file of one good node and, in line 3, one with these keys."""
    usual = {"name": "b", "addresses": "[192.0.2.2]", "podCIDRs": "[10.244.2.0/24]"} | keys
    inner = ", ".join(f"{key}: {value}" for key, value in usual.items() if value)
    return f"nodes:\n- {{name: a, addresses: [192.0.2.1], podCIDRs: []}}\n- {{{inner}}}\n"


def test_a_good_file() -> None:
    assert parse(GOOD) == Snapshot(
        (
            node("node-1", "192.0.2.1 2001:db8::1", "10.244.1.0/24 fd00:10:244:1::/64"),
            Node("7", (ip_address("2001:db8::7"),), ()),
        ),
        (ip_network("10.244.0.0/16"),),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: []", "1: nodes: must list a node at least"),
        ("nodes: {}", "1: nodes is a mapping, must be a list"),
        ("nodes:", "1: nodes: has no value"),
        ("{}", "1: needs the key nodes"),
        ("- name: a", "1: must be a mapping"),
        ("node: []", "1: node: unknown key; did you mean nodes?"),
        ("nodes: [a]", "1: nodes[0] is 'a', must be a mapping"),
        ("nodes: [~]", "1: nodes[0] is empty, must be a mapping"),
        ("nodes:\n- name: a\n", "2: nodes[0]: needs the key addresses"),
        ("nodes:\n- addresses: [192.0.2.1]\n", "2: nodes[0]: needs the key name"),
        (entry(podCIDRs=""), "3: nodes[1]: needs the key podCIDRs"),
        (entry(podCIDRs=" "), "3: nodes[1].podCIDRs: has no value"),
        (entry(podCidrs="[]"), "3: nodes[1].podCidrs: unknown key; did you mean podCIDRs?"),
        (entry(name="a"), "3: nodes[1]: the name a is that of the node in line 2 too"),
        (entry(name="A"), "3: nodes[1].name is 'A', must be a DNS subdomain"),
        (entry(name="-a"), "3: nodes[1].name is '-a', must be a DNS subdomain"),
        (entry(name="a..b"), "3: nodes[1].name is 'a..b', must be a DNS subdomain"),
        (entry(name="'a/../b'"), "3: nodes[1].name is 'a/../b', must be a DNS subdomain"),
        (entry(name='"a\\n"'), r"3: nodes[1].name is 'a\n', must be a DNS subdomain"),
        (entry(name="'$(id)'"), "3: nodes[1].name is '$(id)', must be a DNS subdomain"),
        (entry(name="ünode"), "3: nodes[1].name is 'ünode', must be a DNS subdomain"),
        (entry(name="n" * 254), "3: nodes[1].name is 'nnn"),
        (entry(addresses="192.0.2.2"), "3: nodes[1].addresses is '192.0.2.2', must be a list"),
        (entry(addresses="[]"), "3: nodes[1].addresses: must hold an address at least"),
        (entry(addresses="[192.0.2.2/24]"), "3: nodes[1].addresses[0] is '192.0.2.2/24', must be"),
        (entry(addresses="[192.0.2]"), "3: nodes[1].addresses[0] is '192.0.2', must be an IPv4"),
        (entry(addresses="[192.0.2.02]"), "3: nodes[1].addresses[0] is '192.0.2.02', must be an"),
        (entry(addresses="[3232235521]"), "3: nodes[1].addresses[0] is 3232235521, must be an"),
        (entry(addresses="[node-2]"), "3: nodes[1].addresses[0] is 'node-2', must be an IPv4"),
        (entry(addresses="['fe80::1']"), "3: nodes[1].addresses[0] is 'fe80::1', must be the"),
        (entry(addresses="['2001:db8::1%x']"), "3: nodes[1].addresses[0] is '2001:db8::1%x', must"),
        (entry(addresses="['::ffff:1.2.3.4']"), "3: nodes[1].addresses[0] is '::ffff:1.2.3.4', m"),
        (entry(addresses="[127.0.0.1]"), "3: nodes[1].addresses[0] is '127.0.0.1', must be the"),
        (entry(addresses="[0.0.0.0]"), "3: nodes[1].addresses[0] is '0.0.0.0', must be the"),
        (entry(addresses="[224.0.0.1]"), "3: nodes[1].addresses[0] is '224.0.0.1', must be the"),
        (entry(addresses="['ff02::1']"), "3: nodes[1].addresses[0] is 'ff02::1', must be the"),
        (
            entry(addresses="[192.0.2.2, 192.0.2.3]"),
            "3: nodes[1].addresses[1] is '192.0.2.3', IPv4 has 192.0.2.2: one of each family",
        ),
        (entry(podCIDRs="[10.0.0.0/33]"), "3: nodes[1].podCIDRs[0] is '10.0.0.0/33', must be a"),
        (entry(podCIDRs="[10.0.0.0]"), "3: nodes[1].podCIDRs[0] is '10.0.0.0', must be a prefix"),
        (entry(podCIDRs="[10.0.0.0/]"), "3: nodes[1].podCIDRs[0] is '10.0.0.0/', must be a"),
        (entry(podCIDRs="[10.0.0.0/-8]"), "3: nodes[1].podCIDRs[0] is '10.0.0.0/-8', must be a"),
        (
            entry(podCIDRs="[10.0.0.0/255.0.0.0]"),
            "3: nodes[1].podCIDRs[0] is '10.0.0.0/255.0.0.0', must be a prefix with a prefix len",
        ),
        (
            entry(podCIDRs="[10.244.2.7/24]"),
            "3: nodes[1].podCIDRs[0] is '10.244.2.7/24', "
            "has host bits set: the prefix is 10.244.2.0/24",
        ),
        (entry(podCIDRs="['fd00::1/64']"), "3: nodes[1].podCIDRs[0] is 'fd00::1/64', has host"),
        (entry(podCIDRs="['fd00::%x/64']"), "3: nodes[1].podCIDRs[0] is 'fd00::%x/64', must be"),
        (entry(podCIDRs="[10.0.0.0/31]"), "3: nodes[1].podCIDRs[0] is '10.0.0.0/31', is too small"),
        (entry(podCIDRs="[0.0.0.0/0]"), "3: nodes[1].podCIDRs[0] is '0.0.0.0/0', must not overlap"),
        (entry(podCIDRs="['::/0']"), "3: nodes[1].podCIDRs[0] is '::/0', must not overlap"),
        (entry(podCIDRs="[127.0.0.0/24]"), "3: nodes[1].podCIDRs[0] is '127.0.0.0/24', must not"),
        (entry(podCIDRs="['fe80::/64']"), "3: nodes[1].podCIDRs[0] is 'fe80::/64', must not"),
        (
            entry(podCIDRs="[10.0.0.0/16, 10.0.9.0/24]"),
            "3: nodes[1].podCIDRs[1] is '10.0.9.0/24', overlaps 10.0.0.0/16 of the same node",
        ),
        (
            entry(podCIDRs="[10.0.0.0/16, 192.0.2.0/24]"),
            "3: nodes[1].podCIDRs[1] is '192.0.2.0/24', contains 192.0.2.2, an address of the same",
        ),
        (f"clusterCIDRs: [x]\n{entry()}", "1: clusterCIDRs[0] is 'x', must be a prefix"),
    ],
)
def test_what_is_wrong_is_named_by_line_key_and_value(text: str, message: str) -> None:
    with pytest.raises(FileFault) as caught:
        parse(text)
    assert str(caught.value).startswith(f"nodes.yaml:{message}"), caught.value


def test_nodes_that_contradict_each_other_are_left_to_the_plan() -> None:
    assert len(parse(entry(addresses="[192.0.2.1]", podCIDRs="[10.0.0.0/8]")).nodes) == 2


LINES = GOOD.splitlines(keepends=True)


@pytest.mark.parametrize("count", range(len(LINES)))
def test_whole_lines_of_a_file_are_refused_or_hold_whole_nodes(count: int) -> None:
    whole = parse(GOOD)
    try:
        half = parse("".join(LINES[:count]))
    except FileFault:
        return
    assert set(half.nodes) < set(whole.nodes)


@pytest.mark.parametrize("name", ["a", "0", "a-b.c-d.e", "n" * 253, "1.2.3.4"])
def test_names_that_kubernetes_takes(name: str) -> None:
    assert parse_node_name(name) == name


@given(st.text(max_size=40))
def test_a_name_that_is_taken_is_safe_in_paths_rules_and_logs(text: str) -> None:
    try:
        name = parse_node_name(text)
    except ValueError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert name[0] not in "-." and name[-1] not in "-." and ".." not in name  # noqa: PT018


def test_five_thousand_nodes() -> None:
    lines = [
        f'- {{name: n{n}, addresses: [10.{n >> 8}.{n & 255}.1, "2001:db8::{n:x}"], '
        f'podCIDRs: [100.{n >> 8}.{n & 255}.0/24, "fd00:0:{n:x}::/64"]}}'
        for n in range(5000)
    ]
    found = parse("\n".join(["nodes:", *lines])).nodes
    assert len(found) == 5000
    assert found[4999].pod_cidrs == (ip_network("100.19.135.0/24"), ip_network("fd00:0:1387::/64"))
    lines[4999] = lines[4999].replace("100.19.135.0/24", "100.19.135.0/2x")
    with pytest.raises(FileFault, match=r"nodes\.yaml:5001: nodes\[4999\]\.podCIDRs\[0\] is"):
        parse("\n".join(["nodes:", *lines]))


def prefixes(
    make: type[IPv4Network] | type[IPv6Network], bits: int
) -> st.SearchStrategy[IPNetwork]:
    """Few enough addresses that many overlap."""
    top = st.integers(0, 7).map(lambda n: n << (bits - 3))
    low = st.integers(0, 7).map(lambda n: n << (bits // 2))
    return st.builds(
        lambda a, b, length: make((a | b, length), strict=False), top, low, st.integers(0, bits)
    )


PREFIXES = prefixes(IPv4Network, 32) | prefixes(IPv6Network, 128)


@given(PREFIXES, PREFIXES)
def test_overlapping_is_what_ipaddress_says(one: IPNetwork, other: IPNetwork) -> None:
    wanted = one.version == other.version and one.overlaps(other)
    assert overlap(one, other) == overlap(other, one) == wanted
