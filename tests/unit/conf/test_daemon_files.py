"""conf/podwired.yaml and conf/nodes.yaml describe one cluster together."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import parse_settings
from daemon.routing.planner import Planner
from daemon.sources.static import parse_nodes
from tests.unit.conf.test_routing import NODES, SETTINGS
from tests.unit.daemon.clusters import host_state, planned


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "hybrid", "none"])
def test_the_two_files_make_a_plan_together(backend: str) -> None:
    text = SETTINGS.read_text() + f"\nbackend: {backend}\n"
    settings = parse_settings(text.encode(), SETTINGS, {}, "node-1")
    snapshot = parse_nodes(NODES.read_bytes(), NODES)
    me = snapshot.nodes[0]
    found = host_state(*(f"{a}/{24 if a.version == 4 else 64}" for a in me.addresses))
    desired = planned(Planner(settings), snapshot, found)
    assert settings.source.static == Path("/etc/podwire") / NODES.name
    assert desired.refused == ()
    assert desired.pod_cidrs == me.pod_cidrs
    assert bool(desired.peers["node-2"]) == (backend != "none")
