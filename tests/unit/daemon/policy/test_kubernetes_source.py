"""Which pods of other nodes are followed, and how few watches do it."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.policy.kubernetes_source import WATCHES_MAX, PeerWatch, merge, query_of
from daemon.policy.selectors import parse_selector


def expression(operator: str, *values: str) -> Any:
    return {"matchExpressions": [{"key": "app", "operator": operator, "values": [*values]}]}


MANY = {PeerWatch(f"n{n}", "app=web") for n in range(WATCHES_MAX + 1)}


@pytest.mark.parametrize(
    ("peers", "followed"),
    [
        ({PeerWatch("a", "app=web"), PeerWatch("b")}, {PeerWatch("a", "app=web"), PeerWatch("b")}),
        ({PeerWatch("a", "app=web"), PeerWatch("a")}, {PeerWatch("a")}),
        ({PeerWatch("a", "app=web"), PeerWatch("", "app=web")}, {PeerWatch("", "app=web")}),
        ({PeerWatch("a", "app=web"), PeerWatch("b"), PeerWatch()}, {PeerWatch()}),
        ({PeerWatch("a", f"app=a{n}") for n in range(WATCHES_MAX + 1)}, {PeerWatch("a")}),
        (MANY, {PeerWatch()}),
    ],
)
def test_no_pod_is_followed_twice_and_watches_are_few(
    peers: set[PeerWatch], followed: set[PeerWatch]
) -> None:
    assert merge(peers) == followed


def test_peers_are_asked_for_by_namespace_and_labels() -> None:
    assert (PeerWatch("a/b", "x=y").path, PeerWatch("a", "x=y").query) == (
        "/api/v1/namespaces/a%2Fb/pods", {"labelSelector": "x=y"},
    )  # fmt: skip
    assert (PeerWatch().path, PeerWatch().query) == ("/api/v1/pods", {})


@pytest.mark.parametrize(
    ("selector", "query"),
    [
        ({}, ""),
        ({"matchLabels": {"app": "", "tier": "a.b-1_c"}}, "app=,tier=a.b-1_c"),
        ({"matchLabels": {"app": "web", "tier": "not one"}}, None),
        ({"matchLabels": {"app": "x" * 63}}, "app=" + "x" * 63),
        ({"matchLabels": {"app": "x" * 64}}, None),
        (expression("In", "web", "-web"), "app=web"),
        (expression("NotIn", "web", "db", "web-"), "app notin (db, web)"),
        (expression("NotIn", "*"), ""),
        (expression("Exists"), "app"),
    ],
)
def test_values_that_no_label_can_have_are_not_asked_for(selector: Any, query: str | None) -> None:
    """The API refuses them, and without this watch no change would be learnt any more."""
    assert query_of(parse_selector(selector, "")) == query
