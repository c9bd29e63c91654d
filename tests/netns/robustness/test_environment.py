"""Without the daemon podwire inherits the runtime's environment: it obeys its own part alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node

PLUGIN = """\
#!/bin/bash
[[ $CNI_COMMAND == ADD ]] && env >"${0%/*}/seen"
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.67.0.9/24"}]}'
"""


def test_the_loaders_variables_are_the_delegated_plugins(
    node: Node, pod: Namespace, podwire_bin: Path, tmp_path: Path
) -> None:
    """Any library of that name in LD_LIBRARY_PATH would keep Python from starting."""
    program = tmp_path / "podwire"
    program.symlink_to((podwire_bin / "podwire").resolve())
    (tmp_path / "asked").write_text(PLUGIN)
    (tmp_path / "asked").chmod(0o755)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libz.so.1").write_bytes(b"junk")
    env = {"LD_LIBRARY_PATH": f"{tmp_path}/lib:", "PYTHONHOME": "/nowhere", "HOME": "/home"}
    conf = {
        "cniVersion": "1.0.0",
        "name": "n",
        "type": "podwire",
        "mode": "ptp",
        "ipam": {"type": "asked"},
    }
    added = node.cni("ADD", program, conf, netns=pod.path, env=env)
    assert added.code == 0, added
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert {name: seen[name] for name in env} == env
    assert not [name for name in seen if name.startswith("CALLER_")]
    assert node.cni("DEL", program, {**conf, "ipam": {}}, netns=pod.path, env=env).code == 0
    assert [link["ifname"] for link in pod.ip("link show")] == ["lo"]


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
def test_rules_are_loaded_where_protocols_have_no_names(
    node: Node, pod: Namespace, podwire_bin: Path, mode: str
) -> None:
    """As in an image without netbase: nft looks up what is no word of its own."""
    for name in ("protocols", "services"):
        node.run(["mount", "--bind", "/dev/null", f"/etc/{name}"])
    conf = {
        "cniVersion": "1.0.0", "name": "n", "type": "podwire", "mode": mode, "ipMasq": True,
        "ipam": {"ranges": [[{"subnet": "10.67.0.0/24"}], [{"subnet": "fd67::/64"}]]},
        "runtimeConfig": {
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        },
    }  # fmt: skip
    added = node.cni("ADD", podwire_bin / "podwire", conf, netns=pod.path)
    assert added.code == 0, added
    conf |= {"prevResult": added.json}
    assert node.cni("CHECK", podwire_bin / "podwire", conf, netns=pod.path).code == 0
