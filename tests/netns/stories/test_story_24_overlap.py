"""Address plans that overlap: refused, with the overlapping pair named."""

from typing import Any

import pytest

from tests.netns.robustness.confs import netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

OVERLAPS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "two sets": (
        {"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "10.77.0.128/25"}]]},
        ("ipam.ranges[0]", "ipam.ranges[1]"),
    ),
    "top level and a set": (
        {"subnet": "10.77.0.0/16", "ranges": [[{"subnet": "10.77.3.0/24"}]]},
        ("ipam.subnet", "ipam.ranges[0]"),
    ),
    "IPv6": (
        {"ranges": [[{"subnet": "fd00:77::/48"}], [{"subnet": "fd00:77:0:5::/64"}]]},
        ("ipam.ranges[0]", "ipam.ranges[1]"),
    ),
    "within a set": (
        {"ranges": [[{"subnet": "10.77.0.0/24"}, {"subnet": "10.77.0.0/25"}]]},
        ("ipam.ranges[0]", "10.77.0."),
    ),
    "by a single address": (
        {
            "ranges": [
                [{"subnet": "10.77.0.0/24", "rangeEnd": "10.77.0.50"}],
                [{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.50"}],
            ]
        },
        ("ipam.ranges[0]", "ipam.ranges[1]"),
    ),
}


@pytest.mark.parametrize("mode", ["bridge", "ptp"])
@pytest.mark.parametrize("plan", OVERLAPS)
def test_overlapping_ranges_are_refused(scene: Scene, pod: Namespace, mode: str, plan: str) -> None:
    ipam, words = OVERLAPS[plan]
    before = scene.state(pod)
    error = scene.call("ADD", netconf(mode, ipam=ipam), pod).json
    assert error["code"] == 7
    assert all(word in error["msg"] for word in words), error
    assert before.changes_to(scene.state(pod)) == []


def test_ranges_of_the_runtime_overlap(scene: Scene, pod: Namespace) -> None:
    ranges = {"ipRanges": [[{"subnet": "10.77.0.64/26"}]]}
    error = scene.call("ADD", netconf("ptp", runtimeConfig=ranges), pod).json
    assert error["code"] == 7
    assert "runtimeConfig.ipRanges[0]" in error["msg"]
    assert scene.links(pod) == {"lo"}


def test_ranges_that_only_touch_are_fine(scene: Scene, pod: Namespace) -> None:
    ranges = [
        [{"subnet": "10.77.0.0/24", "rangeEnd": "10.77.0.50"}],
        [{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.51"}],
    ]
    attached = scene.add(netconf("ptp", ipam={"ranges": ranges}), pod)
    assert [ip["address"] for ip in attached.result["ips"]] == ["10.77.0.2/24", "10.77.0.51/24"]
