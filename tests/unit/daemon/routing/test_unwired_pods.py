"""What libcni's cache says of a pod, whatever is in its files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.routing.unwired_pods import Cached, describe, parse_cached

POD = {
    "containerId": "c9",
    "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "b"]],
}


def test_a_pod_of_kubernetes() -> None:
    assert parse_cached(json.dumps(POD).encode()) == Cached("c9", "a/b")


@pytest.mark.parametrize(
    "content",
    [
        {"containerId": "c9"},
        {**POD, "cniArgs": None},
        {**POD, "cniArgs": [["K8S_POD_NAME", "b"]]},
        {**POD, "containerId": 7},
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
FIELDS = st.fixed_dictionaries({"containerId": JSON, "cniArgs": JSON})


@given(st.binary() | (JSON | FIELDS).map(lambda value: json.dumps(value).encode()))
def test_any_content_is_a_pod_or_none(data: bytes) -> None:
    found = parse_cached(data)
    assert found is None or isinstance(found.container_id, str)


def test_the_text_names_few_and_counts_all() -> None:
    assert describe([]) == ""
    assert describe([Cached("1", "a/b")]).startswith("1 pod was attached by another plugin (a/b):")
    many = [Cached(str(n), f"a/{n}") for n in range(9)]
    assert describe([*many, *many]).startswith("9 pods were attached by another plugin (a/0, ")
