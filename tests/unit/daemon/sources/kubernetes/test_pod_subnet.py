"""kubeadm's podSubnet: what it is read from, and what is refused with what to do."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.kubernetes.pod_subnet import parse_pod_subnet
from daemon.sources.remote import SourceError


def config_map(text: object) -> dict[str, object]:
    return {"kind": "ConfigMap", "data": {"ClusterConfiguration": text}}


@pytest.mark.parametrize(
    "text", ["10.244.0.0/16,fd00:10:244::/56", '"10.244.0.0/16, fd00:10:244::/56"']
)
def test_prefixes_of_both_families(text: str) -> None:
    """kubeadm takes them separated by commas (cmd/kubeadm/app/apis/kubeadm/v1beta4/types.go)."""
    content = f"apiServer: {{}}\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: {text}\n"
    found = parse_pod_subnet(config_map(content))
    assert found == (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        ({}, "has no ClusterConfiguration"),
        ({"data": {"ClusterStatus": ""}}, "has no ClusterConfiguration"),
        (config_map(7), "has no ClusterConfiguration"),
        (config_map("networking: {serviceSubnet: 10.96.0.0/16}"), "has no networking.podSubnet"),
        (config_map("networking: {podSubnet: [10.0.0.0/8]}"), "has no networking.podSubnet"),
        (config_map("networking: [podSubnet]"), "has no networking.podSubnet"),
        (config_map("networking: {podSubnet: 10.0.0.0/8;x}"), "'10.0.0.0/8;x', must be a prefix"),
        (config_map("networking: {podSubnet: 0.0.0.0/0}"), "'0.0.0.0/0', must not overlap"),
        (config_map("networking: {podSubnet: '10.0.0.0/8,'}"), "must be a prefix"),
        (config_map("networking: {"), "ClusterConfiguration of ConfigMap kube-system/kubeadm-"),
    ],
)  # fmt: skip
def test_what_has_none_says_what_to_set(thing: object, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_pod_subnet(thing)
    assert why in str(caught.value)
    assert "set source.kubernetes.clusterCIDRs" in str(caught.value)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
    | st.text().map(config_map)
)
def test_anything_is_read_or_refused(thing: object) -> None:
    with suppress(SourceError):
        assert parse_pod_subnet(thing)
