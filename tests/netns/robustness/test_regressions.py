"""Faults that were found by trying to break podwire, each by what a user would do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]


@pytest.mark.parametrize("aliases", [["web"], {"robust": ["web"]}], ids=["list", "podman's map"])
def test_aliases_in_both_shapes(scene: Scene, pod: Namespace, aliases: object) -> None:
    conf = netconf("ptp", runtimeConfig={"aliases": aliases})
    scene.add(conf, pod)
    ((record,),) = scene.query("SELECT record FROM attachment")
    assert json.loads(record)["aliases"] == ["web"]


def test_the_longest_kubernetes_names(scene: Scene, pod: Namespace) -> None:
    args = f"K8S_POD_NAMESPACE={'n' * 63};K8S_POD_NAME={'p' * 253}"
    attached = scene.add(netconf("ptp", (4, 6)), pod, "c" * 64, args=args)
    assert scene.check(attached, args=args).code == 0
    scene.delete(attached)
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [{"mtu": "x"}, {"vlan": 3}, {"hairpinMode": "x"}])
def test_delete_again_with_a_wrong_key(
    scene: Scene, pod: Namespace, mode: str, wrong: dict[str, object]
) -> None:
    attached = scene.add(netconf(mode), pod)
    for _ in range(2):
        assert scene.call("DEL", {**attached.conf, **wrong}, pod, "c1").code == 0
    assert scene.leftovers(pod) == []


@pytest.mark.needs("newest-reference")
def test_gc_frees_what_a_delegated_ipam_holds(
    scene: Scene, make_pod: MakePod, newest_reference_bin: Path
) -> None:
    data_dir = "/var/lib/host-local"
    ipam = {"type": "host-local", "subnet": "10.79.0.0/24", "dataDir": data_dir}
    conf = netconf("ptp", ipam=ipam)
    path = {"cni_path": str(newest_reference_bin)}
    scene.add(conf, make_pod(), "stale", **path)
    kept = scene.add(conf, make_pod(), "kept", **path)
    answer = scene.gc(conf, [("kept", "eth0")], **path)
    assert answer.code == 0, answer
    files = scene.on_files(lambda: sorted(p.name for p in Path(data_dir, "robust").iterdir()))
    assert kept.address(4) in files, answer
    assert "10.79.0.2" not in files, answer


@pytest.mark.parametrize("mtu", [1279, 1280])
def test_mtu_too_small_for_ipv6(scene: Scene, pod: Namespace, mtu: int) -> None:
    answer = scene.call("ADD", netconf("ptp", (4, 6), mtu=mtu), pod)
    if mtu == 1280:
        assert answer.code == 0, answer
    else:
        assert answer.json["code"] == 7
        assert "mtu: 1279" in answer.json["msg"]


def test_networks_that_share_an_address_are_told_so(scene: Scene, make_pod: MakePod) -> None:
    """Another IPAM plugin gives it, which knows of no other network."""
    static = {"type": "static", "addresses": [{"address": "10.77.0.9/24"}]}
    fixed: dict[str, Any] = {"ipam": static, "cniVersion": "1.0.0"}
    path = f"{scene.bin_dir}:/usr/lib/cni"
    scene.add(netconf("ptp", **fixed), make_pod(), "one", cni_path=path)
    other = netconf("ptp", name="other", **fixed)
    answer = scene.call("ADD", other, make_pod(), "two", cni_path=path)
    assert answer.json["code"] == 101
    assert "do two networks share a subnet?" in answer.json["msg"]


def test_status_before_an_add_that_would_fail(scene: Scene) -> None:
    conf = netconf("bridge", bridge="dummy0")
    assert scene.call("STATUS", conf).code == 0
    scene.node.ns.ip_batch("link add dummy0 type veth peer name dummy1")
    answer = scene.call("STATUS", conf)
    assert answer.json["code"] == 50
    assert "dummy0" in answer.json["msg"]


def test_a_store_that_others_can_write_is_refused(scene: Scene, pod: Namespace) -> None:
    scene.node.run(["mkdir", "-m", "0777", "/var/lib/podwire"])
    answer = scene.call("ADD", netconf("ptp"), pod)
    assert answer.json["code"] == 5
    assert "/var/lib/podwire can be written by others" in answer.json["msg"]


def test_a_store_that_is_a_pipe_is_replaced(scene: Scene, pod: Namespace) -> None:
    scene.node.run(["mkdir", "-m", "0700", "/var/lib/podwire"])
    scene.node.run(["mkfifo", "/var/lib/podwire/podwire.db"])
    answer = scene.call("ADD", netconf("ptp"), pod)
    assert answer.code == 0, answer
    assert "was damaged" in answer.stderr
