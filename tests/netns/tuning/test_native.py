"""Settings and traits of the pod's link in a network of podwire's own."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
TUNED = {
    "sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1", "net.core.somaxconn": "512"},
    "promisc": True,
    "allmulti": True,
    "txQLen": 500,
    "mtu": 1400,
}


def conf(mode: str, **keys: Any) -> dict[str, Any]:
    return netconf(mode, (4, 6), **{**TUNED, **keys})


def allow(scene: Scene, *patterns: str) -> None:
    """The node's list of the settings that are allowed."""
    scene.node.run(["mount", "-t", "tmpfs", "podwire-test", "/etc/cni"])
    text = "\n".join(patterns) + "\n"
    scene.node.run(["mkdir", "/etc/cni/tuning"])
    scene.node.run(["tee", "/etc/cni/tuning/allowlist.conf"], stdin=text)


@pytest.mark.parametrize("mode", MODES)
def test_what_the_pod_gets(scene: Scene, make_pod: MakePod, mode: str) -> None:
    attached = scene.add(conf(mode), make_pod(), "c1")
    pod = attached.pod
    link = pod.link("eth0")
    assert link is not None
    assert (link["mtu"], link["txqlen"]) == (1400, 500)
    assert {"PROMISC", "ALLMULTI", "UP"} <= set(link["flags"])
    assert pod.sysctl("ipv4/conf/eth0/log_martians") == "1"
    assert pod.sysctl("core/somaxconn") == "512"
    assert scene.check(attached).code == 0
    for damage, repair in (
        ("link set eth0 promisc off", "link set eth0 promisc on"),
        ("link set eth0 allmulticast off", "link set eth0 allmulticast on"),
        ("link set eth0 txqueuelen 7", "link set eth0 txqueuelen 500"),
    ):
        pod.ip_batch(damage)
        answer = scene.check(attached)
        assert answer.code == 1, damage
        assert answer.json["code"] == 102
        pod.ip_batch(repair)
    pod.sysctl("ipv4/conf/eth0/log_martians", "0")
    assert "log_martians" in scene.check(attached).json["msg"]
    scene.delete(attached)
    assert scene.leftovers() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"sysctl": {"net.core.somaxconn": "512", "net.ipv4.no_such": "1"}}, 101),
        ({"sysctl": {"net.ipv4.conf.IFNAME.forwarding": "x"}}, 101),
        ({"sysctl": {"kernel.hostname": "x"}}, 7),
        ({"txQLen": -1}, 7),
    ],
)
def test_what_fails_changes_nothing(
    scene: Scene, make_pod: MakePod, mode: str, keys: dict[str, Any], code: int
) -> None:
    pod = make_pod()
    before = pod.sysctl("core/somaxconn")
    answer = scene.call("ADD", conf(mode, **keys), pod, "c1")
    assert answer.json["code"] == code
    assert pod.link("eth0") is None
    assert pod.sysctl("core/somaxconn") == before
    assert scene.leftovers() == []


def test_what_the_node_allows(scene: Scene, make_pod: MakePod) -> None:
    allow(scene, "", r"  ^net\.ipv4\.conf\.IFNAME\.[a-z_]*$  ", "^net.core.somaxconn$")
    attached = scene.add(conf("ptp"), make_pod(), "c1")
    refused = {"net.core.somaxconn2": "1"}
    answer = scene.call("ADD", conf("ptp", sysctl=refused), make_pod(), "c2")
    assert (answer.json["code"], "not allowed" in answer.json["msg"]) == (7, True)
    assert "^net.core.somaxconn$" in answer.json["details"]
    untuned = scene.add(netconf("ptp"), make_pod(), "c3")
    for each in (attached, untuned):
        scene.delete(each)
    assert scene.leftovers() == []


@pytest.mark.parametrize("pattern", ["(", "^[[:alpha:]]+$"])
def test_a_list_that_podwire_cannot_read(scene: Scene, make_pod: MakePod, pattern: str) -> None:
    """Nothing is allowed then: the administrator meant some limit."""
    allow(scene, pattern, ".*")
    answer = scene.call("ADD", conf("ptp"), make_pod(), "c1")
    assert (answer.json["code"], "no regular expression" in answer.json["msg"]) == (7, True)
    assert scene.leftovers() == []


def test_other_names_ignore_the_keys(scene: Scene, make_pod: MakePod) -> None:
    """`bridge` knows no `promisc`, and what it does not know it lets be."""
    keys = {"type": "bridge", "promisc": "yes", "sysctl": 1, "ipam": {"type": "host-local"}}
    pod = make_pod()
    base = netconf("bridge", (4, 6))
    plain = {**base, **keys, "ipam": {**base["ipam"], "type": "host-local"}}
    attached = scene.add(plain, pod, "c1")
    link = pod.link("eth0")
    assert link is not None
    assert "PROMISC" not in link["flags"]
    scene.delete(attached)
