"""Settings that links inherit, and MTUs, that packets of pods cannot live with."""

from __future__ import annotations

import pytest

from tests.netns.robustness.confs import BRIDGE, GATEWAYS, MODES, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace
from tests.pytest_netns.plugin import MakeNamespace

INHERITED = {
    "forwarding": {"ipv4/ip_forward": "1", "ipv4/conf/default/forwarding": "0"},
    "IPv6 forwarding": {"ipv6/conf/all/forwarding": "1", "ipv6/conf/default/forwarding": "0"},
    "IPv6 off": {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"},
    "no link-local address": {"ipv6/conf/default/addr_gen_mode": "1"},
    "strict reverse path": {"ipv4/conf/default/rp_filter": "1"},
    "ARP for the own subnet alone": {"ipv4/conf/default/arp_ignore": "2"},
    "advertisements": {"ipv6/conf/default/accept_ra": "2"},
    "slow duplicate address detection": {"ipv6/conf/default/dad_transmits": "5"},
}


def inherit(scene: Scene, settings: dict[str, str]) -> None:
    for setting, value in settings.items():
        scene.node.ns.sysctl(setting, value)


def reaches(one: Attached, other: Attached) -> None:
    """Silent so far, both: the node asks for them."""
    for version in (4, 6):
        assert one.pod.ping(other.address(version)), version
        assert one.pod.ping(GATEWAYS[version]), version


@pytest.mark.parametrize("name", INHERITED)
@pytest.mark.parametrize("mode", MODES)
def test_pods_do_not_depend_on_what_links_inherit(
    scene: Scene, netns: MakeNamespace, mode: str, name: str
) -> None:
    inherit(scene, INHERITED[name])
    conf = netconf(mode, (4, 6))
    one, other = (scene.add(conf, netns("pod"), container_id=f"c{n}") for n in (1, 2))
    reaches(one, other)
    for attached in (one, other):
        assert scene.check(attached).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_forwarding_across_links_does_not_depend_on_what_they_inherit(
    scene: Scene, netns: MakeNamespace, mode: str
) -> None:
    """Two networks: the node routes between them, in both directions."""
    for settings in INHERITED.values():
        inherit(scene, settings)
    one = scene.add(netconf(mode, (4, 6)), netns("pod"))
    ranges = [[{"subnet": "10.78.0.0/24"}], [{"subnet": "fd00:78::/64"}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    conf = netconf(mode, name="other", ipam={"ranges": ranges, "routes": routes})
    if mode == "bridge":
        conf["bridge"] = "pwbr1"
    other = scene.add(conf, netns("pod"), container_id="c2")
    for version in (4, 6):
        assert one.pod.ping(other.address(version)), version


SPOILED = {
    "ptp": ("forwarding", "disable_ipv6", "addr_gen_mode", "arp_ignore"),
    "bridge": ("forwarding", "disable_ipv6", "addr_gen_mode"),
}
CASES = [(mode, setting) for mode, settings in SPOILED.items() for setting in settings]


@pytest.mark.parametrize(("mode", "setting"), CASES)
def test_a_setting_of_a_link_that_was_changed_is_named(
    scene: Scene, pod: Namespace, mode: str, setting: str
) -> None:
    attached = scene.add(netconf(mode, (4, 6)), pod)
    link = BRIDGE if mode == "bridge" else attached.host
    family = "ipv6" if "6" in setting or "gen" in setting else "ipv4"
    path = f"{family}/conf/{link}/{setting}"
    before = scene.node.ns.sysctl(path)
    other = "1" if before == "0" else "0"
    scene.node.ns.sysctl(path, other)
    answer = scene.check(attached)
    assert answer.json["code"] == 102
    assert f"net/{path} in the node is {other}, not {before}" in str(answer.json)
    if mode == "bridge":  # the next pod repairs what all share
        again = scene.add(netconf(mode, (4, 6)), pod, container_id="c2", ifname="eth1")
        assert scene.node.ns.sysctl(path) == before
        assert scene.check(again).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_an_uplink_too_small_for_ipv6_is_named_before_anything_is_made(
    scene: Scene, pod: Namespace, mode: str
) -> None:
    scene.node.ns.ip_batch("link set eth0 mtu 1200")
    before = scene.state(pod)
    answer = scene.call("ADD", netconf(mode, (4, 6)), pod.path)
    assert answer.json["code"] == 7
    assert "1200 is below 1280, the least for IPv6" in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []
    assert scene.query("SELECT count(*) FROM allocation") == [(0,)]
    scene.add(netconf(mode, (4,)), pod)


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [
        ({}, 7, f"the MTU of bridge {BRIDGE}, 1200 is below 1280, the least for IPv6"),
        ({"mtu": 1500}, 101, "it has an MTU of 1200, and IPv6 needs 1280"),
    ],
)
def test_a_bridge_too_small_for_ipv6_is_named(
    scene: Scene, pod: Namespace, keys: dict[str, int], code: int, message: str
) -> None:
    scene.node.ns.ip_batch(f"link add {BRIDGE} mtu 1200 type bridge")
    before = scene.state(pod)
    answer = scene.call("ADD", netconf("bridge", (4, 6), **keys), pod.path)
    assert answer.json["code"] == code
    assert message in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []


def test_arp_that_is_turned_off_for_all_links_is_named(scene: Scene, netns: MakeNamespace) -> None:
    """The larger of both values holds, so no link's own setting helps."""
    one, other = (scene.add(netconf("ptp", (4, 6)), netns("pod"), f"c{n}") for n in (1, 2))
    for value in ("2", "8"):
        scene.node.ns.sysctl("ipv4/conf/all/arp_ignore", value)
        text = f"net.ipv4.conf.all.arp_ignore={value} overrules"
        checked = scene.check(one).json
        assert (checked["code"], text in checked["msg"]) == (102, True)
        before = scene.state()
        answer = scene.call("ADD", netconf("ptp", (4, 6)), netns("pod"), "c3").json
        assert (answer["code"], text in answer["msg"]) == (101, True)
        assert before.changes_to(scene.state()) == []
        scene.add(netconf("bridge"), netns("pod"), f"bridged{value}", "eth1")
        six = scene.add(netconf("ptp", (6,)), netns("pod"), f"six{value}", "eth1")
        assert six.pod.ping(GATEWAYS[6])
    scene.node.ns.sysctl("ipv4/conf/all/arp_ignore", "1")
    reaches(one, other)
    assert scene.check(one).code == 0
