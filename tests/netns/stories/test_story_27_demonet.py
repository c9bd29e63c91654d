"""The configuration of a talk about CNI, to the letter, with podwire under the plugins' names."""

from pathlib import Path

from tests.netns.robustness.scene import addresses
from tests.pytest_netns import CniResult, Namespace, Node, changes, snapshot

DEMONET = b"""{
    "cniVersion": "0.3.1",
    "name": "demonet",
    "type": "ptp",
    "ipam": {
        "type": "host-local",
        "subnet": "10.0.0.0/24"
    }
}
"""


def test_demonet(node: Node, pod: Namespace, podwire_bin: Path) -> None:
    before = snapshot(pod)
    netns = f"/var/run/netns/{pod.name}"

    def call(verb: str) -> CniResult:
        answer = node.cni(
            verb, podwire_bin / "ptp", DEMONET, container_id="demo", netns=netns, ifname="demoeth0"
        )
        assert answer.code == 0, answer
        return answer

    result = call("ADD").json
    host, inside = result["interfaces"]
    assert result == {
        "cniVersion": "0.3.1",
        "interfaces": [
            {"name": host["name"], "mac": host["mac"]},
            {"name": "demoeth0", "mac": inside["mac"], "sandbox": netns},
        ],
        "ips": [{"version": "4", "interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
        "dns": {},
    }
    assert addresses(pod, "demoeth0") == {"10.0.0.2/24"}
    assert pod.ping("10.0.0.1")
    assert node.ns.ping("10.0.0.2")

    call("DEL")
    assert changes(before, snapshot(pod)) == []
    assert node.ns.link(host["name"]) is None
    call("DEL")
