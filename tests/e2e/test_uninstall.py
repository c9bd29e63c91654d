"""podwire leaves the nodes, and leaves them as they were."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import KubeCluster
from tests.e2e.conftest import DUAL_STACK, FOREIGN, IPV6_ONLY
from tests.pytest_netns import changes, snapshot

pytestmark = [pytest.mark.needs("kubernetes"), pytest.mark.timeout(900)]


@pytest.mark.families(DUAL_STACK, IPV6_ONLY)
def test_uninstall_leaves_the_nodes_as_they_were(cluster: KubeCluster) -> None:
    cluster.plane.kubectl("delete", "pods", "--all", "--wait")
    cluster.uninstall()
    for machine in cluster.machines:
        folders = ("/etc/cni/net.d", "/opt/cni/bin", "/run/podwire", "/var/lib/podwire")
        left = machine.run("find", *folders, "!", "-type", "d").split()
        assert left == ([FOREIGN] if machine.name == "n1" else [])
        assert "podwire" not in machine.run("nft", "list", "tables")
        assert "podwire" not in machine.run("ip", "link")
        for family in ("-4", "-6"):
            assert machine.run("ip", family, "route", "show", "proto", "113") == ""
        after = snapshot(machine.node.ns)
        # Tables are kube-proxy's, which changes them meanwhile; by iptables it sets route_localnet.
        found = changes({**cluster.before[machine], "nft": []}, {**after, "nft": []})
        assert [line for line in found if "route_localnet" not in line] == []
