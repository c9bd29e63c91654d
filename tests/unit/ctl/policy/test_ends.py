"""What this node knows of policies: nothing where they are not enforced."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from cni_plugin.names import Mark, host_link_name, render_alias
from ctl.policy.ends import Egress, read_known
from daemon.config.load import parse_settings
from daemon.config.schema import Settings
from daemon.options import Unusable
from daemon.policy.saved_facts import saved_path
from ipam.transaction import Owner
from kernel.packets import ICMP
from tests.unit.cni_plugin.namespaces import elsewhere

KUBERNETES = "{kubernetes: {clusterCIDRs: [10.244.0.0/16]}}"
TARGET = ip_address("10.244.2.0")
OWNER = Owner("podwire", "c1", "eth0")
LINK = host_link_name(OWNER)
MUTE = {
    "kind": "NetworkPolicy",
    "metadata": {"namespace": "app", "name": "mute"},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
}
WEB = {
    "kind": "Pod",
    "metadata": {"namespace": "app", "name": "web"},
    "status": {"podIPs": [{"ip": "10.244.1.2"}]},
}


def settings(tmp_path: Path, policy: str, source: str = KUBERNETES) -> Settings:
    text = f"node: n1\nsource: {source}\ndataDir: {tmp_path}\npolicy: {policy}\n"
    return parse_settings(text.encode(), "podwired.yaml", {}, "host")


def save(found: Settings, *things: object) -> Settings:
    """Have what a daemon saved, and one pod: app/web."""
    saved_path(found.data_dir).write_text(json.dumps({"kind": "List", "items": things}))
    subprocess.run(["ip", "link", "add", LINK, "type", "veth", "peer", "pod"], check=True)
    alias = render_alias(Mark(OWNER, (ip_interface("10.244.1.2/32"),), pod="app/web"))
    subprocess.run(["ip", "link", "set", "dev", LINK, "alias", alias], check=True)
    return found


@pytest.mark.parametrize(
    ("policy", "source", "why"),
    [
        ("false", KUBERNETES, "`policy: false`"),
        ("{}", "{static: /nodes.yaml}", "no `policy.dir`"),
    ],
)
def test_old_policies_that_are_not_enforced_are_not_known(
    tmp_path: Path, policy: str, source: str, why: str
) -> None:
    with elsewhere():
        off = save(settings(tmp_path, policy, source), MUTE, WEB)
        with pytest.raises(Unusable, match=f"policies are not enforced: .*{why}"):
            read_known(off)
        assert Egress(off).allows(LINK, TARGET, ICMP)
        on = settings(tmp_path, "{}")
        assert len(read_known(on).facts.policies) == 1
        assert not Egress(on).allows(LINK, TARGET, ICMP)


@pytest.mark.parametrize(("unknown", "allowed"), [("open", True), ("closed", False)])
def test_a_pod_that_is_not_described_may_send_what_the_daemon_lets_it(
    tmp_path: Path, unknown: str, allowed: bool
) -> None:
    with elsewhere():
        found = save(settings(tmp_path, f"{{unknownPods: {unknown}}}"), MUTE)
        assert Egress(found).allows(LINK, TARGET, ICMP) is allowed
