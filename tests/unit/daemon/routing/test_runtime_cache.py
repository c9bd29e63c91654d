"""What libcni's cache says of a pod, whatever is in its files."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.routing.runtime_cache import Cached, parse_cached

POD = {
    "containerId": "c9",
    "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "b"]],
}


def test_a_pod_of_kubernetes() -> None:
    assert parse_cached(json.dumps(POD).encode()) == Cached("c9", "a/b")


FULL = {
    **POD,
    "networkName": "n",
    "ifName": "eth0",
    "netns": "/run/netns/p",
    "config": base64.b64encode(b'{"plugins": [{"type": "bridge"}, {"type": "portmap"}]}').decode(),
    "result": {
        "interfaces": [
            {"name": "cni0"},
            {"name": "veth1"},
            {"name": "eth0", "sandbox": "/run/netns/p"},
        ],
        "ips": [{"address": "10.1.0.2/24"}, {"address": "fd00::2/64"}],
    },
}


def test_what_the_runtime_noted_besides() -> None:
    addresses = (ip_interface("10.1.0.2/24"), ip_interface("fd00::2/64"))
    whole = Cached("c9", "a/b", "n", "eth0", "/run/netns/p", "veth1", "bridge", addresses)
    assert parse_cached(json.dumps(FULL).encode()) == whole


@pytest.mark.parametrize(
    "content",
    [
        {"containerId": "c9"},
        {**POD, "cniArgs": None},
        {**POD, "cniArgs": [["K8S_POD_NAME", "b"]]},
        {**POD, "containerId": 7},
        {**POD, "ifName": "lo"},
        {**POD, "cniArgs": [["x"]]},
        [],
    ],
)
def test_what_is_none(content: object) -> None:
    assert parse_cached(json.dumps(content).encode()) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RESULT = st.fixed_dictionaries({"interfaces": JSON, "ips": JSON}) | JSON
FIELDS = st.fixed_dictionaries({"containerId": JSON, "cniArgs": JSON, "result": RESULT}) | (
    st.fixed_dictionaries({"result": RESULT, "config": JSON, "netns": JSON}).map(lambda v: POD | v)
)


@given(st.binary() | (JSON | FIELDS).map(lambda value: json.dumps(value).encode()))
def test_any_content_is_a_pod_or_none(data: bytes) -> None:
    found = parse_cached(data)
    assert found is None or isinstance(found.container_id, str)
