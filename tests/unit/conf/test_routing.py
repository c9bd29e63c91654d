"""The daemon's files below conf/ are right, and what they show as defaults are the defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon.config.load import parse_settings
from daemon.sources.static import parse_nodes
from tests import ROOT

CONF = ROOT / "conf"
SETTINGS, NODES = CONF / "podwired.yaml", CONF / "nodes.yaml"


# What differs from node to node is an example, not a default.
EXAMPLES = re.compile(r"^#((node|underlay): |  (kubernetes|etcd):\n(#    .*\n)+).*\n", re.MULTILINE)


def test_the_settings_load() -> None:
    settings = parse_settings(SETTINGS.read_bytes(), SETTINGS, {}, "node-1")
    assert settings.source.static == Path("/etc/podwire/nodes.yaml")


def test_the_defaults_shown_are_the_defaults() -> None:
    """A setting is `#key: value`, or `#  key: value` within another; `# text` is for people."""
    text = SETTINGS.read_text()
    shown = re.sub(r"^#(?=(  )?[a-zA-Z]+:( |$))", "", EXAMPLES.sub("", text), flags=re.MULTILINE)
    keys = set(re.findall(r"^ *([a-zA-Z]+):", shown, re.MULTILINE))
    assert keys >= {"backend", "vni", "mtu", "allowOverlap", "cniVersion", "maxBytes", "socket"}
    assert parse_settings(shown.encode(), SETTINGS, {}, "node-1") == parse_settings(
        text.encode(), SETTINGS, {}, "node-1"
    )


def test_the_examples_are_right() -> None:
    text = re.sub(r"^#(?=(node|underlay): )", "", SETTINGS.read_text(), flags=re.MULTILINE)
    settings = parse_settings(text.encode(), SETTINGS, {}, "other")
    assert (settings.node, settings.underlay) == ("node-1", 4)


@pytest.mark.parametrize("kind", ["kubernetes", "etcd"])
def test_the_other_sources_are_right(kind: str) -> None:
    """Each is a source as it stands, with its defaults shown where it has any."""
    text = SETTINGS.read_text()
    [block] = re.findall(rf"^#(  {kind}:\n(?:#    .*\n)+)", text, re.MULTILINE)
    source = "source:\n" + block.replace("#    ", "    ")
    text = text.replace("source:\n  static: /etc/podwire/nodes.yaml\n", source)
    found = parse_settings(text.encode(), SETTINGS, {}, "node-1").source
    assert found.kind == kind
    section = found.kubernetes or found.etcd
    assert section is not None
    optional = {n: f.default for n, f in type(section).model_fields.items() if not f.is_required()}
    shown = {name for name, default in optional.items() if default not in (None, "")}
    for name in shown - {"addresses", "cluster_cidrs"}:
        assert getattr(section, name) == optional[name], name


def test_the_nodes_load() -> None:
    snapshot = parse_nodes(NODES.read_bytes(), NODES)
    assert [node.name for node in snapshot.nodes] == ["node-1", "node-2"]
    for node in snapshot.nodes:
        assert len(node.addresses) == len(node.pod_cidrs) == 2
        for prefix in node.pod_cidrs:
            assert any(
                cluster.version == prefix.version and cluster.supernet_of(prefix)  # type: ignore[arg-type]
                for cluster in snapshot.cluster_cidrs
            )
