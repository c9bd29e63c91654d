"""The names that a shell completes are those of the node."""

from pathlib import Path

import pytest

from tests.netns.ctl.conftest import Stage

pytestmark = pytest.mark.xdist_group("podwirectl completion")


def test_pods_and_peers(stage: Stage, tmp_path: Path) -> None:
    stage.add("shop/cart")
    stage.add("shop/cart", ifname="net1", name="more")
    stage.note("old/$(id)", "cali7")  # bash would execute it
    assert len(stage.json("pods")) == 3
    assert stage.ctl("completion", "--words", "pods") == ("shop/cart\n", "")
    nodes, config = tmp_path / "nodes.yaml", tmp_path / "podwired.yaml"
    nodes.write_text(
        "nodes:\n"
        f"- {{name: n1, addresses: [{stage.node.address(4)}], podCIDRs: [10.77.0.0/24]}}\n"
        "- {name: n2, addresses: [192.0.2.99], podCIDRs: [10.78.0.0/24]}\n"
    )
    config.write_text(f"node: n1\nsource: {{static: {nodes}}}\n")
    assert stage.ctl("completion", "--words", "peers", "--config", config) == ("n2\n", "")
