"""Settings are kept as desired, in a namespace with a real kernel's."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing.planner import Planner
from daemon.routing.reporter import Reporter
from daemon.routing.sysctls import Sysctls
from kernel.errors import KernelError
from kernel.model import Sysctl
from kernel.netlink.socket import Netlink
from tests.unit.cni_plugin.namespaces import elsewhere
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings


def test_a_setting_of_an_uplink_that_is_gone_is_no_lasting_drift(tmp_path: Path) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"))
    plan = planned(Planner(settings("backend: host-gw")), cluster(node(1)), host_state())
    before, after = (
        replace(plan, uplink=link, sysctls=(Sysctl(f"net/ipv4/conf/{link}/forwarding", "1"),))
        for link in ("br0", "br1")
    )
    with elsewhere(), Netlink() as nl:
        links = "link add br0 type bridge\nlink add br1 type bridge\n"
        subprocess.run(["ip", "-batch", "-"], input=links, text=True, check=True)
        kept = Sysctls(nl, tmp_path / "originals", reporter, routes_pods=False)
        kept.reconcile(before, "")
        subprocess.run(["ip", "link", "del", "br0"], check=True)
        kept.is_due = True
        with pytest.raises(KernelError):
            kept.reconcile(before, "")
        kept.reconcile(after, "")
    assert reporter.counts.drift_detected["sysctl"] == reporter.counts.drift_repaired["sysctl"] == 1
