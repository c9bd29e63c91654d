"""Routes of the configuration whose next hop is not the gateway."""

from typing import Any

import pytest

from tests.netns.robustness.confs import MODES, Conf, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

ROUTES = [("192.168.0.0/16", "10.77.5.1"), ("fd00:192::/48", "fd00:77::5:1")]


def conf_of(mode: str, *routes: dict[str, Any]) -> Conf:
    ranges = [
        [{"subnet": "10.77.0.0/16", "gateway": "10.77.0.254"}],
        [{"subnet": "fd00:77::/64", "gateway": "fd00:77::fe"}],
    ]
    return netconf(mode, ipam={"ranges": ranges, "routes": list(routes)})


@pytest.mark.parametrize("mode", MODES)
def test_a_next_hop_in_the_subnet(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(conf_of(mode, *({"dst": d, "gw": g} for d, g in ROUTES)), pod)
    for dst, gw in ROUTES:
        (route,) = pod.ip(f"route show {dst}" if "." in dst else f"-6 route show {dst}")
        assert (route["gateway"], route["dev"]) == (gw, "eth0")
    assert scene.check(attached).code == 0
    scene.delete(attached)
    assert scene.leftovers(pod) == []


def test_packets_reach_the_node(scene: Scene, pod: Namespace) -> None:
    """Which knows the way on; the reference `ptp` leaves the next hop unresolved."""
    attached = scene.add(conf_of("ptp", *({"dst": d, "gw": g} for d, g in ROUTES)), pod)
    scene.node.ns.ip_batch("address add 192.168.1.1/32 dev lo\naddress add fd00:192::1/128 dev lo")
    assert pod.ping("192.168.1.1")
    assert pod.ping("fd00:192::1")
    pod.ip_batch("neighbour del 10.77.5.1 dev eth0")
    error = scene.check(attached).json
    assert error["code"] == 102
    assert "neighbour 10.77.5.1" in error["msg"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gw", ["10.99.0.1", "fd00:99::1"])
def test_a_next_hop_out_of_reach(scene: Scene, pod: Namespace, mode: str, gw: str) -> None:
    dst = "192.168.0.0/16" if "." in gw else "fd00:192::/48"
    before = scene.state(pod)
    error = scene.call("ADD", conf_of(mode, {"dst": dst, "gw": gw}), pod).json
    assert error["code"] == 7
    for part in ("ipam.routes", gw, dst):
        assert part in error["msg"]
    assert "10.77.0.0/16" in error["details"]
    after = [line for line in before.changes_to(scene.state(pod)) if "rows" not in line]
    assert after == []
    assert scene.rows() == {}


def test_a_gateway_outside_the_subnet(scene: Scene, pod: Namespace) -> None:
    ranges = [[{"subnet": "fd00:77::/64", "gateway": "fe80::1"}]]
    routes = [{"dst": "::/0", "gw": "fe80::1"}, {"dst": "fd00:9::/32"}]
    attached = scene.add(netconf("ptp", ipam={"ranges": ranges, "routes": routes}), pod)
    assert scene.check(attached).code == 0
