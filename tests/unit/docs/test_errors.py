"""docs/errors.md lists every code of a CNI call, finding of the status, and reason of a peer."""

from __future__ import annotations

import json
import re
from contextlib import closing
from inspect import getsource
from ipaddress import ip_address
from pathlib import Path

import pytest

from cni_plugin import errors
from ctl.__main__ import main
from ctl.commands.status import describe_suspended
from ctl.doctor.checks.probes import check_probes
from ctl.doctor.observed import Observed
from ctl.doctor.probing import PodProbe
from daemon.cni_server.call_counters import CallCounters
from daemon.config.schema import ConflistSettings
from daemon.files import explain as explain_file
from daemon.metrics.endpoint import explain
from daemon.probes.prober import describe_overload
from daemon.probes.report import HealthReport, Reason, State, Trouble
from daemon.routing import stale_pods
from daemon.routing.capacity import describe_full
from daemon.routing.diversions import Diverted
from daemon.routing.foreign_filters import describe_translation
from daemon.routing.kept_programs import explain_missing
from daemon.routing.peer_filter import describe_limit
from daemon.routing.runtime_cache import Cached
from daemon.routing.takeover import explain_first
from daemon.routing.unwired_pods import describe as describe_unwired
from daemon.status import NodeStatus, Refused, StatusFile
from ipam.usage import Usage
from kernel.errors import KernelError
from kernel.limits import Disk, Level
from kernel.paths import Packet, PacketPath
from tests.unit.docs.pages import codes, read, rows, section


def test_every_code_is_on_the_page() -> None:
    listed = [int(row[0]) for row in rows(section(read("errors.md"), "Codes of CNI calls"))]
    assert listed == list(errors.CODES)


def test_each_code_has_a_meaning_and_advice() -> None:
    for code, meaning, advice in rows(section(read("errors.md"), "Codes of CNI calls")):
        assert meaning, code
        assert advice or int(code) == errors.UNKNOWN_CONTAINER, code


NO_SPACE = explain_missing({Path("/opt/a"): explain_file("the file", Path("/b"), OSError(28, "x"))})
STALE_PODS = "1 pod has an address of no pod CIDR of this node (10.244.9.2)"
DIVERTED = (
    "packets of pods to 10.244.2.0/24 of node-2 go dev tun0 "
    "by rule 5270: from all lookup 52, not dev eth0"
)
DROPPED = Diverted(
    Packet(ip_address("10.244.2.2")), "10.244.2.0/24 of node-2", "podwire-vxlan", PacketPath(),
    "net.ipv4.conf.pw0.forwarding is 0",
)  # fmt: skip
TABLE, DISK = Level("tracked connections", 9, 9, "a.b"), Disk(Path("/var/lib/podwire"), 1)
SILENT = PodProbe(
    "default/web", (("node-2", ip_address("10.244.2.0")),), ("10.96.0.10",), None, (9000, 1450), 2
)
ROUTES = str(KernelError("add", "route 10.244.2.0/24", 12))
REFUSED = Refused("node-2", "10.244.2.0/24", "overlaps 10.244.2.0/24 on eth1 of this node")


def everything_wrong() -> NodeStatus:
    calls = CallCounters(2)
    calls.drop(1)
    health = HealthReport(
        failed=2,
        troubles=(
            Trouble("node-2", "failed", "mtu", "small packets arrive", 0.0),
            Trouble("node-3", "retrying", "one-way", "let it pass", 0.0),
        ),
        fault="peers are not probed: port 8473 is in use",
    )
    return NodeStatus(
        "node-1", "vxlan", "static", wanted=2, in_sync=1, fault="no link has its address",
        refused=(REFUSED,), tolerated=(REFUSED,), health=health,
        faults={
            "paths": DIVERTED, "routes": ROUTES, "attachments": ATTACHMENTS, "pods": STALE_PODS,
            "source": "nodes.yaml:3: nodes is empty", "cluster": "nodes.yaml: is empty",
            "filter": "load podwire's nftables tables: Operation not permitted",
            "limit": describe_limit(8473), "unchecked": UNCHECKED,
            "firewall": "this node's own firewall drops VXLAN (UDP port 8472) from peers: …",
            "takeover": explain_first(ConflistSettings(), "00-flannel.conf"),
            "programs": NO_SPACE,
            "unwired": describe_unwired([Cached("c1", "default/web")]),
            "conflist": "it cannot be written", "journal": "it cannot be written",
            "metrics": explain("127.0.0.1", 9473, OSError()), "calls": calls.fault,
            "tables": f"{TABLE}: {TABLE.remedy}", "disk": f"{DISK.fault}: {DISK.remedy}",
            "policy": "pods default/web are closed, as their namespaces have policies",
        },
    )  # fmt: skip


UNCHECKED = "1 of 2 attachments were made without the source check, and may send from any address"
ATTACHMENTS = "1 of 2 attachments are not as planned: link pw0123 of default/web: its link is gone"


@pytest.fixture
def reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `podwirectl status` reports of a node where everything is wrong: of a daemon that runs,
    is stuck, and has ended."""
    path, texts = tmp_path / "status.json", list[str]()

    def ask() -> None:
        main(["status", "--file", str(path)])
        lines = capsys.readouterr().out.splitlines()
        texts.extend(line[1:].strip() for line in lines if line.startswith("!"))

    with closing(StatusFile(path)) as file:
        file.write(everything_wrong())
        ask()
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"uptime": content["uptime"] - 1000}))
        ask()
    path.write_text(json.dumps(content))
    ask()
    rare = (
        describe_overload("192.0.2.1", 8473),
        describe_suspended(1),
        describe_full(Usage("podwire", 4, 253, size=253)),
        describe_translation("8080/tcp", "10.244.1.2", "rule 1 of chain PREROUTING"),
        DROPPED.describe(),
        *(finding.what for finding in check_probes(Observed(0.0, probe=SILENT))),
    )
    return [*texts, *rare]


FINDINGS = [row[0] for row in rows(section(read("errors.md"), "Findings of `podwirectl status`"))]


def as_pattern(finding: str) -> str:
    """What a finding of the page stands for: `…` for any text, and so a word in capitals."""
    text = codes(finding)[0]
    return re.sub("…|[A-Z]{4,}", ".*", re.escape(text))


def test_every_finding_is_on_the_page(reported: list[str]) -> None:
    patterns = [as_pattern(finding) for finding in FINDINGS]
    for text in reported:
        assert [p for p in patterns if re.fullmatch(f"{p}.*", text)], text


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_finding_of_the_page_is_reported(finding: str, reported: list[str]) -> None:
    pattern = as_pattern(finding)
    assert [text for text in reported if re.fullmatch(f"{pattern}.*", text)]


def test_every_state_and_reason_of_a_peer_is_on_the_page() -> None:
    listed = [codes(row[0])[0] for row in rows(section(read("errors.md"), "Peers"))]
    assert listed == [*State, *filter(None, Reason)]


def test_the_finding_about_stale_pods_is_worded_so() -> None:
    assert STALE_PODS.partition("has an address ")[2].partition(" (")[0] in getsource(stale_pods)
