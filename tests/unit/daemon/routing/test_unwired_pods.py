"""What the daemon says of pods that another plugin attached."""

from __future__ import annotations

from daemon.routing.runtime_cache import Cached
from daemon.routing.unwired_pods import describe


def test_the_text_names_few_and_counts_all() -> None:
    assert describe([]) == ""
    assert describe([Cached("1", "a/b")]).startswith("1 pod was attached by another plugin (a/b):")
    other = describe([Cached("1", "a/b", plugin="calico")])
    assert other.startswith("1 pod was attached by another plugin (a/b by calico):")
    many = [Cached(str(n), f"a/{n}") for n in range(9)]
    assert describe([*many, *many]).startswith("9 pods were attached by another plugin (a/0, ")
    assert "(a/0, a/1, a/2, ...: `podwirectl pods` lists them)" in describe(many)
