"""Elements of port mappings and what is read from them."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.conntrack import Flow
from kernel.model import IPAddress
from kernel.nftables.masquerade import hairpin_element
from kernel.nftables.port_mappings import (
    PROTOCOLS,
    describe_port,
    exclusion_elements,
    flow_of,
    mapping_element,
    pod_of,
)

PORTS = st.integers(1, 65535)
Pair = tuple[IPAddress | None, IPAddress]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """An address of the node, if any, and a pod's, of one family."""
    addresses = st.ip_addresses(v=draw(st.sampled_from((4, 6))))
    return draw(st.none() | addresses), draw(addresses)


@given(st.sampled_from(sorted(PROTOCOLS)), pairs(), PORTS, PORTS)
def test_a_mapping_is_read_back(protocol: str, pair: Pair, port: int, pod_port: int) -> None:
    host, pod = pair
    element = mapping_element(protocol, host, port, pod, pod_port)
    assert flow_of(element) == Flow(pod.version, PROTOCOLS[protocol], port, host)
    assert pod_of(element) == pod
    assert describe_port(element).endswith(f"{port}/{protocol}")


def test_other_elements_are_none() -> None:
    element = hairpin_element("pw0", ip_address("10.0.0.2"))
    assert (flow_of(element), pod_of(element), describe_port(element)) == (None, None, "")


@pytest.mark.parametrize(
    ("prefixes", "count"),
    [
        ([], 0),
        (["10.0.0.0/24", "10.0.0.7/32"], 1),
        (["10.0.0.0/25", "10.0.0.128/25", "fd00::/8"], 2),
    ],
)
def test_exclusions_do_not_overlap(prefixes: list[str], count: int) -> None:
    assert len(exclusion_elements(map(ip_network, prefixes))) == count
