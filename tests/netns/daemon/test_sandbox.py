"""The daemon under the capabilities and memory rules of its systemd unit."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from tests import ROOT
from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.networks import MakePod, call_all, failures, left_over, netconf
from tests.pytest_netns.node import Node

UNIT = ROOT / "packaging" / "systemd" / "podwired.service"
# prctl(2): PR_SET_MDWE, as MemoryDenyWriteExecute; an older kernel knows it not.
SCRIPT = """\
#!/bin/sh
exec setpriv --bounding-set=-all,{capabilities} --no-new-privs {python} -c '
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])' {podwired} "$@"
"""


def capabilities() -> list[str]:
    """Those that the unit leaves."""
    found = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    return [name.removeprefix("CAP_").lower() for name in found[1].split()]


def confined(daemon: Daemon) -> set[str]:
    """What the kernel says of the daemon's privileges."""
    text = Path(f"/proc/{daemon.processes[-1]}/status").read_text()
    return {line for line in text.splitlines() if line.startswith(("CapEff", "NoNewPrivs"))}


def test_every_verb_in_every_mode(
    node: Node,
    start_daemon: StartDaemon,
    podwired: Path,
    podwire_bin: Path,
    make_pod: MakePod,
    tmp_path: Path,
) -> None:
    script, python = tmp_path / "podwired", podwired.with_name("python3")
    words = ",".join(f"+{name}" for name in capabilities())
    script.write_text(SCRIPT.format(capabilities=words, python=python, podwired=podwired))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text("nodes: [{name: a, addresses: [192.0.2.1], podCIDRs: [10.244.1.0/24]}]\n")
    config = tmp_path / "podwired.yaml"
    config.write_text(f"node: a\nsource: {{static: {nodes}}}\n")
    daemon = start_daemon(node, script, words=["run", "--config", str(config)])
    assert "NoNewPrivs:\t1" in confined(daemon)
    assert "CapEff:\t000001ffffffffff" not in confined(daemon)
    program, pods = podwire_bin / "podwire", [make_pod() for _ in range(4)]
    for verb in ("ADD", "DEL"):
        assert failures(call_all(daemon, program, verb, pods)) == []
    conf = netconf("b", 67, "bridge", dual=True, ipMasq=True)
    added = daemon.cni("ADD", program, conf, container_id="b", netns=pods[0].path)
    assert added.code == 0, added
    checked = {**conf, "prevResult": added.json}
    assert daemon.cni("CHECK", program, checked, container_id="b", netns=pods[0].path).code == 0
    assert daemon.cni("DEL", program, conf, container_id="b", netns=pods[0].path).code == 0
    ipam = {"type": "podwire-ipam", "subnet": "10.68.0.0/24"}
    delegated = {**conf, "name": "d", "mode": "ptp", "ipam": ipam}
    for verb in ("ADD", "DEL"):
        answer = daemon.cni(verb, program, delegated, container_id="d", netns=pods[1].path)
        assert answer.code == 0, answer
    assert "Operation not permitted" not in daemon.log
    assert daemon.stop()[0] == 0
    assert left_over(node, podwire_bin, pods) == []
