"""`podwirectl check-config`: what it says of right and wrong files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.ctl.conftest import NODES, Run


def test_a_right_configuration_is_summed_up(run: Run, config: Path, tmp_path: Path) -> None:
    status, out, err = run("check-config", config)
    assert (status, err) == (0, "")
    assert f"{config} is right" in out
    assert f"{tmp_path}/nodes.yaml is right: 2 nodes" in out
    assert "node-1, pod CIDRs 10.244.1.0/24, fd00:10:244:1::/64" in out
    assert "vxlan, VNI 1, UDP port 8472, device podwire-vxlan" in out
    assert "!" not in out


def test_a_node_that_the_list_lacks_is_pointed_at(run: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("node-1", "node-9"))
    status, out, _err = run("check-config", config)
    assert status == 1
    assert "node-9, this node, is not in the list" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10.244.2.0/24", "10.244.1.128/25", "its pod CIDR 10.244.1.128/25 overlaps 10.244.1.0/24"),
        ("[192.0.2.2]", "[192.0.2.1]", "node-2: its address 192.0.2.1 is that of node-1 too"),
        (
            "[192.0.2.2]",
            '["2001:db8::2"]',
            "is not reached: the node encapsulates in IPv6, and this",
        ),
        ('[10.244.1.0/24, "fd00:10:244:1::/64"]', "[]", "node-1, this node, has no pod CIDR"),
    ],
)
def test_what_the_plan_would_refuse_is_said_before(
    run: Run, config: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    (tmp_path / "nodes.yaml").write_text(NODES.replace(old, new))
    status, out, err = run("check-config", config)
    assert (status, err) == (1, "")
    assert [line for line in out.splitlines() if line.startswith("!")] == [
        line for line in out.splitlines() if said in line
    ]
    assert said in out
    assert "nodes.yaml can be read: 2 nodes" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("node-1", "Node_1", "podwired.yaml:1: node is 'Node_1'"),
        ("dataDir", "datadir", "podwired.yaml:3: datadir: unknown key; did you mean dataDir?"),
        ("nodes.yaml", "gone.yaml", "gone.yaml: could not be read: No such file or directory"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(
    run: Run, config: Path, old: str, new: str, said: str
) -> None:
    config.write_text(config.read_text().replace(old, new))
    status, out, err = run("check-config", config)
    assert (status, out) == (1, "")
    assert said in err


def test_what_is_wrong_in_the_list_is_named(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "nodes.yaml").write_text(NODES.replace("10.244.2.0/24", "10.244.2.0/33"))
    status, out, err = run("check-config", config)
    assert (status, out) == (1, "")
    assert "nodes.yaml:8: nodes[1].podCIDRs[0] is '10.244.2.0/33', must be a prefix" in err


def test_a_configuration_that_is_not_there(run: Run, tmp_path: Path) -> None:
    status, _out, err = run("check-config", tmp_path / "none.yaml")
    assert status == 1
    assert f"{tmp_path}/none.yaml: could not be read" in err
