"""What later plugins of a chain changed is no fault to CHECK, and no obstacle to DEL."""

from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import MODES, ipam, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace

DEBIAN = Path("/usr/lib/cni")
OTHER_MAC = "02:00:00:00:be:ef"


def run_after(scene: Scene, plugin: str, attached: Attached, **keys: Any) -> None:
    """ADD of a later plugin of the chain; the attachment's result becomes the chain's."""
    conf = {
        "cniVersion": "1.0.0",
        "name": attached.conf["name"],
        "type": plugin,
        "prevResult": attached.result,
        **keys,
    }
    answer = scene.node.cni(
        "ADD", DEBIAN / plugin, conf, container_id=attached.container_id, netns=attached.pod.path
    )
    assert answer.code == 0, answer
    attached.result = answer.json


@pytest.mark.parametrize("mode", MODES)
def test_mac_set_by_a_later_plugin(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(netconf(mode, (4, 6), cniVersion="1.0.0"), pod)
    own = attached.result
    run_after(scene, "tuning", attached, mac=OTHER_MAC)
    link = pod.link("eth0")
    assert link is not None
    assert link["address"] == OTHER_MAC
    assert scene.check(attached).code == 0
    attached.result = own
    assert "has MAC" in scene.check(attached).json["msg"]


@pytest.mark.parametrize("mode", MODES)
def test_route_added_by_a_later_plugin(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(netconf(mode, (4,)), pod)
    pod.ip_batch("route add 198.51.100.0/24 via 10.77.0.1")
    more = {"dst": "198.51.100.0/24", "gw": "10.77.0.1"}
    attached.result = {**attached.result, "routes": [*attached.result["routes"], more]}
    assert scene.check(attached).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_route_and_address_removed_by_a_later_plugin(
    scene: Scene, pod: Namespace, mode: str
) -> None:
    attached = scene.add(netconf(mode, (4, 6)), pod)
    pod.ip_batch("route del ::/0\naddress del fd00:77::2/64 dev eth0")
    attached.result = {
        **attached.result,
        "ips": [ip for ip in attached.result["ips"] if "." in ip["address"]],
        "routes": [route for route in attached.result["routes"] if "." in route["dst"]],
    }
    answer = scene.check(attached)
    assert answer.code == 0, answer


def test_chain_is_deleted_by_podwire_alone(scene: Scene, pod: Namespace) -> None:
    attached = scene.add(netconf("ptp", (4,), cniVersion="1.0.0"), pod)
    run_after(scene, "tuning", attached, mac=OTHER_MAC)
    scene.delete(attached)
    assert scene.leftovers(pod) == []


def test_result_of_earlier_plugins_is_kept(scene: Scene, pod: Namespace) -> None:
    earlier = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": str(pod.path)}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
    }
    conf = netconf("ptp", (4,), prevResult=earlier)
    attached = scene.add(conf, pod)
    names = [i["name"] for i in attached.result["interfaces"]]
    assert names == ["lo", attached.host, "eth0"]
    assert [ip["interface"] for ip in attached.result["ips"]] == [0, 2]
    assert scene.check(attached).code == 0


def test_address_of_another_plugins_attachment_is_not_freed(scene: Scene, pod: Namespace) -> None:
    """podwire-ipam gave an address to another plugin's pod; podwire refuses to attach it again."""
    conf = {
        "cniVersion": "1.0.0",
        "name": "robust",
        "type": "bridge",
        "bridge": "other0",
        "ipam": ipam(4, type="podwire-ipam"),
    }
    path = f"{scene.bin_dir}:{DEBIAN}"
    made = scene.node.cni("ADD", DEBIAN / "bridge", conf, netns=pod.path, cni_path=path)
    assert made.code == 0, made
    held = scene.rows()["allocation"]
    refused = scene.call("ADD", netconf("ptp", (4,)), pod)
    assert refused.json["code"] == 103, refused
    assert scene.rows() == {"allocation": held}
    assert scene.node.cni("DEL", DEBIAN / "bridge", conf, netns=pod.path, cni_path=path).code == 0
