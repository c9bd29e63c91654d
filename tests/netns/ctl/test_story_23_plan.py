"""Story 23: address plans are made by hand, overlap, and run out.

`podwirectl plan` computes them, compares them with the node's networks, and shows how full they
are.
"""

from pathlib import Path

import pytest

from tests.netns.ctl.conftest import Stage

pytestmark = pytest.mark.xdist_group("podwirectl plan")


def test_120_nodes_with_60_pods(stage: Stage) -> None:
    found = stage.json("plan", "--nodes", 120, "--pods", 60)
    four, six = found["families"]
    assert (four["nodePrefixLength"], four["clusterPrefixLength"]) == (26, 19)
    assert (four["podsPerNodeMax"], four["nodesMax"]) == (61, 128)
    assert (four["clusterCIDR"], six["clusterCIDR"]) == ("10.244.0.0/19", "fd00:10:244::/57")
    assert found["podMTU"]["vxlan over IPv4"] == 1450
    table, _ = stage.ctl("plan", "--nodes", 120, "--pods", 60, "--mtu", 9000)
    assert "8950 (vxlan over IPv4)" in table
    assert "/19" in table


def test_what_does_not_fit_or_overlaps(stage: Stage) -> None:
    stage.node.ns.ip_batch(f"route add 10.244.8.0/21 via {stage.underlay.gateway(4)}\n")
    found = stage.json("plan", "--nodes", 120, "--pods", 60)
    assert found["families"][0]["clusterCIDR"] == "10.0.0.0/19"
    words = ("--nodes", 120, "--pods", 60, "--cluster-cidr", "10.244.0.0/20")
    found = stage.json("plan", *words, status=1)
    assert found["problems"] == [
        "10.244.0.0/20 has prefixes for 64 nodes, not 120: a /19 has",
        "10.244.0.0/20 overlaps 10.244.8.0/21 on eth0 of this node",
    ]
    assert "two prefixes of one family" in stage.ctl(
        "plan", *words, "--cluster-cidr", "10.0.0.0/8", status=1
    )[1]  # fmt: skip
    stage.ctl("plan", "--nodes", 0, status=2)


def test_the_present_plan(stage: Stage, tmp_path: Path) -> None:
    address = stage.node.address(4)
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(
        "clusterCIDRs: [10.77.0.0/16]\n"
        f"nodes: [{{name: n1, addresses: [{address}], podCIDRs: [10.77.0.0/28]}}]\n"
    )
    config = tmp_path / "podwired.yaml"
    config.write_text(f"node: n1\nsource: {{static: {nodes}}}\n")
    ipam = {"type": "podwire-ipam", "ranges": [[{"subnet": "10.77.0.0/28"}]]}
    for letter in "abcdefghijkl":
        stage.add(f"shop/{letter}", "ptp", name="podwire", ipam=ipam)
    found = stage.json("plan", "--config", config, status=1)
    assert found["spaces"] == [
        {"prefix": "10.77.0.0/28", "what": "addresses", "used": 12, "size": 13},
        {"prefix": "10.77.0.0/16", "what": "prefixes", "used": 1, "size": 4096},
    ]
    assert found["problems"] == ["10.77.0.0/28 is nearly full: 12 of 13 addresses are in use"]
    assert "12 of 13 addresses" in stage.ctl("plan", "--config", config, status=1)[0]
