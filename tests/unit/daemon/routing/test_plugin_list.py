"""Plugins that others append to the conflist stay, in their order; podwire's own come first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.schema import PLUGIN_MAX
from daemon.config.values import PLUGINS_MAX
from daemon.routing.plugin_list import (
    CHAINED,
    FILE_MAX,
    is_same,
    merge,
    parse_conf,
    render_conf,
)

PODWIRE = {"type": "podwire", "mtu": 1450}
OTHERS = ("istio-cni", "linkerd-cni", "tuning", "sbr")
CONFIGURED = ("portmap", "bandwidth", "tuning")

types = st.sampled_from(OTHERS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    extra = draw(st.dictionaries(st.text(max_size=4), json_values, max_size=3))
    return {**extra, "type": draw(types)}


def conf_of(chained: list[str], mtu: int = 1450) -> dict[str, Any]:
    """What the daemon writes with these types configured."""
    plugins: list[dict[str, Any]] = [{**PODWIRE, "mtu": mtu}, *({"type": kind} for kind in chained)]
    conf = {"cniVersion": "1.0.0", "name": "podwire", "podwired": "…", "plugins": plugins}
    return {**conf, CHAINED: chained} if chained else conf


configured = st.lists(st.sampled_from(CONFIGURED), max_size=3)


@given(configured, configured, st.lists(entries(), max_size=5), st.randoms())
def test_the_order_and_content_of_others_survive_every_rewrite(
    before: list[str], after: list[str], others: list[dict[str, Any]], random: Any
) -> None:
    # An installer appends; whoever it is, its entries may end up anywhere.
    observed = conf_of(before)
    own = observed["plugins"]
    places = sorted(random.randrange(len(own) + 1) for _ in others)
    mixed = list(own)
    for place, entry in reversed(list(zip(places, others, strict=True))):
        mixed.insert(place, entry)
    observed["plugins"] = mixed
    merged = merge(conf_of(after, 9000), observed)
    own_after = conf_of(after, 9000)
    assert merged.conf["plugins"][: len(own_after["plugins"])] == own_after["plugins"]
    rest = merged.conf["plugins"][len(own_after["plugins"]) :]
    # Of the types that the file says are the daemon's, the first entries are.
    for kind in ("podwire", *before):
        mixed.remove(next(e for e in mixed if e["type"] == kind))
    assert rest == [e for e in mixed if e["type"] not in after]
    assert {k: v for k, v in merged.conf.items() if k != "plugins"} == {
        k: v for k, v in own_after.items() if k != "plugins"
    }
    again = merge(own_after, merged.conf)
    assert again.conf == merged.conf, "a second look changes nothing"
    assert again.dropped == ()


@given(json_values, json_values)
def test_anything_as_plugins_gives_a_file_that_runtimes_take(one: object, other: object) -> None:
    observed = {**conf_of([]), CHAINED: one, "plugins": other}
    if isinstance(other, list):
        observed["plugins"] = [*other, {"type": "istio-cni"}]
    merged = merge(conf_of(["portmap"]), observed)
    read = parse_conf(render_conf(merged.conf))
    assert read is not None
    assert read["plugins"][0] == PODWIRE
    assert all(isinstance(entry["type"], str) for entry in read["plugins"])
    assert len(merged.dropped) == (len(other) if isinstance(other, list) else 0)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "istio-cni",
        ["istio-cni"],
        {},
        {"type": ""},
        {"type": 7},
        {"type": "../istio-cni"},
        {"type": "a\0b"},
        {"type": "x" * 300},
        {"type": "istio-cni", "much": "x" * PLUGIN_MAX},
        {"type": "istio-cni", "infinite": json.loads("1e999")},
        {"type": "istio-cni", "deep": json.loads("[" * 500 + "]" * 500)},
    ],
)
def test_entries_that_spoil_the_file_are_dropped_and_named(entry: object) -> None:
    observed = conf_of([])
    observed["plugins"] += [entry, {"type": "linkerd-cni"}]
    merged = merge(conf_of([]), observed)
    assert merged.kept == ("linkerd-cni",)
    assert len(merged.dropped) == 1
    assert len(merged.dropped[0]) < 200


def test_podwire_stands_once_and_first() -> None:
    observed = conf_of([])
    observed["plugins"] = [{"type": "istio-cni"}, {"type": "podwire"}, *observed["plugins"]]
    assert merge(conf_of([]), observed).conf["plugins"] == [PODWIRE, {"type": "istio-cni"}]


def test_a_configured_type_stands_once_whoever_appends_it() -> None:
    # istio and linkerd take out the first entry of their type and append theirs.
    own = conf_of(["istio-cni"])
    own["plugins"][1]["log_level"] = "info"
    observed = json.loads(json.dumps(own))
    observed["plugins"][1:] = [{"type": "istio-cni", "log_level": "debug"}]
    assert merge(own, observed).conf == own
    observed["plugins"].append({"type": "istio-cni"})
    merged = merge(own, observed)
    assert merged.conf == own
    assert merged.dropped == ("istio-cni: conflist.plugins has that type",)


def test_a_plugin_that_is_no_longer_configured_goes() -> None:
    observed = conf_of(["portmap", "bandwidth"])
    observed["plugins"].append({"type": "istio-cni"})
    types_left = [e["type"] for e in merge(conf_of(["bandwidth"]), observed).conf["plugins"]]
    assert types_left == ["podwire", "bandwidth", "istio-cni"]


def test_no_more_than_a_few_are_kept() -> None:
    observed = conf_of([])
    observed["plugins"] += [{"type": f"plugin-{n}"} for n in range(1000)]
    merged = merge(conf_of([]), observed)
    assert merged.kept == tuple(f"plugin-{n}" for n in range(PLUGINS_MAX))
    assert len(merged.dropped) == 1000 - PLUGINS_MAX


@given(json_values)
def test_a_value_that_was_written_by_another_program_is_the_same(value: object) -> None:
    assert is_same(value, json.loads(json.dumps(value, sort_keys=True)))
    assert not is_same(value, [value])
    assert not is_same({"a": value}, {"a": value, "b": None})


def test_numbers_are_compared_as_go_has_them() -> None:
    assert is_same({"rate": 1.0}, {"rate": 1})
    assert is_same(2**60 + 1, 2**60)
    assert is_same(10**400, 10**401)
    assert not is_same(1, True)
    assert not is_same(10**400, -(10**400))
    assert not is_same("1", 1)


def test_no_file_is_too_large_to_be_read_again() -> None:
    observed = conf_of([])
    fill = "\N{SNOWMAN}" * (PLUGIN_MAX // 6 - 80)
    observed["plugins"] += [{"type": "t" * 200, "x": [fill]} for _ in range(PLUGINS_MAX)]
    merged = merge(conf_of([]), observed)
    assert len(merged.kept) == PLUGINS_MAX
    assert len(render_conf(merged.conf)) < FILE_MAX
