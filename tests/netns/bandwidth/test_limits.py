"""Limits in podwire's own configuration: what the kernel has, what CHECK finds, what stays."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.bandwidth.limits import BURST, EGRESS, INGRESS, LIMITS, qdiscs, redirections
from tests.netns.robustness.confs import MODES, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.netns.robustness.test_kill import instants, kill
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
RECEIVED = {key: value for key, value in LIMITS.items() if key.startswith("ingress")}


def conf(mode: str = "ptp", limits: dict[str, Any] | None = None, **keys: Any) -> Conf:
    bandwidth = {"bandwidth": LIMITS if limits is None else limits}
    return netconf(mode, (4, 6), runtimeConfig=bandwidth, **keys)


def ifb_of(attached: Attached) -> str:
    """The device that the result lists last."""
    return str(attached.result["interfaces"][-1]["name"])


def bucket(rate: int, burst: int = BURST) -> dict[str, Any]:
    size = f"{burst // 8}b/1"
    options = {"rate": rate // 8, "burst": size, "mpu": 0, "lat": 25000, "linklayer": "unspec"}
    return {"kind": "tbf", "root": True, "handle": "1:", "options": options}


@pytest.mark.parametrize("mode", MODES)
def test_the_plan_is_in_the_kernel_and_goes_whole(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(conf(mode), pod)
    ns, host, ifb = scene.node.ns, attached.host, ifb_of(attached)
    assert ifb.startswith("bwp")
    found = qdiscs(ns)
    assert found.keys() == {host, ifb}
    assert [q["options"] for q in found[ifb]] == [bucket(EGRESS)["options"]]
    kinds = {q["kind"]: q["options"] for q in found[host]}
    assert kinds["tbf"] == bucket(INGRESS)["options"]
    assert redirections(ns, host) == [ifb]
    link = ns.link(ifb)
    assert link
    assert "UP" in link["flags"]
    assert attached.result["interfaces"][-1] == {"name": ifb, "mac": link["address"]}
    assert scene.check(attached).code == 0
    for family in (4, 6):
        assert ns.ping(attached.address(family))
    scene.delete(attached)
    assert scene.leftovers(pod) == []
    scene.delete(attached)


def test_the_result_names_the_pods_link_as_before(scene: Scene, make_pod: MakePod) -> None:
    """The device comes last: an address counts its interface from the front."""
    plain = scene.add(conf(limits={}), make_pod(), "c1").result
    limited = scene.add(conf(), make_pod(), "c2").result
    assert [i["name"][:3] for i in limited["interfaces"]][2:] == ["bwp"]
    assert len(plain["interfaces"]) == 2
    assert [ip["interface"] for ip in limited["ips"]] == [ip["interface"] for ip in plain["ips"]]


@pytest.mark.parametrize("limits", [{}, {"ingressRate": 0, "ingressBurst": 0}])
def test_no_limits(scene: Scene, pod: Namespace, limits: dict[str, int]) -> None:
    attached = scene.add(conf(limits=limits), pod)
    assert qdiscs(scene.node.ns) == {}
    assert scene.check(attached).code == 0


def test_as_bridge_podwire_has_no_limits(scene: Scene, pod: Namespace) -> None:
    """The reference's has none, and its neighbours in the chain get the same runtimeConfig."""
    attached = scene.add(conf("bridge", type="bridge"), pod, program="bridge")
    assert qdiscs(scene.node.ns) == {}
    scene.delete(attached, program="bridge")


DAMAGE = {
    "bucket of the pair deleted": ("tc qdisc del dev {host} root", "qdisc tbf of link {host} "),
    "another rate": (
        "tc qdisc change dev {host} root handle 1: tbf rate 1mbit burst 50k latency 25ms",
        "qdisc tbf of link {host} in the node has rate",
    ),
    "another kind": (
        "tc qdisc del dev {host} root && tc qdisc add dev {host} root handle 1: pfifo_fast",
        "qdisc tbf of link {host} ",
    ),
    "bucket of the device deleted": ("tc qdisc del dev {ifb} root", "qdisc tbf of link {ifb} "),
    "redirection deleted": ("tc filter del dev {host} ingress", "redirection of what link {host}"),
    "place of filters deleted": ("tc qdisc del dev {host} ingress", "redirection of what"),
    "redirected elsewhere": (
        "tc filter del dev {host} ingress && tc filter add dev {host} ingress prio 1 "
        "protocol all u32 match u32 0 0 action mirred egress redirect dev lo",
        "receives in the node goes to lo, not {ifb}",
    ),
    "device deleted": ("ip link del {ifb}", "link {ifb} is missing in the node"),
    "device down": ("ip link set {ifb} down", "link {ifb} in the node is down"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_check_finds_each_difference(scene: Scene, pod: Namespace, damage: str) -> None:
    attached = scene.add(conf("bridge"), pod)
    command, words = DAMAGE[damage]
    names = {"host": attached.host, "ifb": ifb_of(attached)}
    scene.node.ns.run(["sh", "-c", command.format(**names)])
    answer = scene.check(attached)
    assert answer.json["code"] == 102
    assert words.format(**names) in answer.json["details"]
    scene.delete(attached)
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_limited_pod_is_held_to_its_addresses(scene: Scene, pod: Namespace, mode: str) -> None:
    """What comes back from the device is received by the pod's link, as before."""
    scene.add(conf(mode), pod)
    pod.ip_batch("address add 10.77.0.99/24 dev eth0")
    assert pod.ping("10.77.0.1")
    forged = pod.run(["ping", "-c", "1", "-W", "1", "-I", "10.77.0.99", "10.77.0.1"], check=False)
    assert forged.returncode == 1, forged


def test_add_fails_where_the_device_is_anothers(scene: Scene, make_pod: MakePod) -> None:
    """A container's second attachment to one network has the name, too; as in the reference."""
    pod = make_pod()
    first = scene.add(conf(), pod)
    before = scene.state(pod)
    answer = scene.call("ADD", conf(), pod, "c1", "eth1")
    assert answer.json["code"] == 101
    assert ifb_of(first) in answer.json["msg"]
    assert "another attachment" in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []
    unlimited = scene.add(conf(limits=RECEIVED), pod, "c1", "eth1")
    scene.delete(unlimited)
    assert scene.check(first).code == 0
    for lost in (False, True):
        if lost:
            scene.query("DELETE FROM attachment")
        scene.call("DEL", conf(), pod, "c1", "eth1")
        assert ifb_of(first) in scene.links()


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_add_leaves_no_device(scene: Scene, pod: Namespace, mode: str) -> None:
    """The step that fails comes after the limits."""
    refused = {"routes": [{"dst": "198.51.100.0/24", "scope": 255}]}
    wrong = conf(mode)
    wrong["ipam"] = {**wrong["ipam"], **refused}
    before = scene.state(pod)
    assert scene.call("ADD", wrong, pod).json["code"] == 101
    assert before.changes_to(scene.state(pod)) == []


def test_wrong_limits(scene: Scene, pod: Namespace) -> None:
    before = scene.state(pod)
    for limits in ({"ingressRate": 1000}, {**LIMITS, "egressBurst": "1"}, {"egressBurst": 2**40}):
        answer = scene.call("ADD", conf(limits=limits), pod)
        assert answer.json["code"] == 7
        assert "runtimeConfig.bandwidth." in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []


@pytest.mark.parametrize("lost", [False, True], ids=["recorded", "store lost"])
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_pod_whose_namespace_is_gone(
    scene: Scene, make_pod: MakePod, verb: str, lost: bool
) -> None:
    """The pair goes with the namespace, the device stays."""
    pod, stays = make_pod(), make_pod()
    other = scene.add(conf(), stays, "stays")
    attached = scene.add(conf(), pod)
    pod.remove()
    assert ifb_of(attached) in scene.links()
    if lost:
        scene.query("DELETE FROM attachment")
        scene.query("DELETE FROM allocation")
    if verb == "DEL":
        assert scene.call("DEL", conf(), "/run/netns/gone").code == 0
    else:
        assert scene.gc(conf(), [("stays", "eth0")]).code == 0
    assert ifb_of(attached) not in scene.links()
    assert ifb_of(other) in scene.links()


def test_what_another_add_needs_takes_devices_of_pods_that_are_gone(
    scene: Scene, make_pod: MakePod
) -> None:
    """An ADD that finds no address frees those of pods without a DEL."""
    small = {"ranges": [[{"subnet": "10.77.0.0/29", "rangeEnd": "10.77.0.2"}]]}
    pod = make_pod()
    attached = scene.add(conf(ipam=small), pod)
    pod.vanish()
    scene.add(conf(ipam=small, limits={}), make_pod(), "c2")
    assert ifb_of(attached) not in scene.links()


@pytest.mark.parametrize("finish", ["DEL", "GC"])
def test_killed_at_any_instant(scene: Scene, pod: Namespace, finish: str) -> None:
    limited = conf()
    assert scene.call("STATUS", limited).code == 0
    for at in instants(scene, "ADD", limited, pod, 15):
        answer = scene.gc(limited, []) if finish == "GC" else scene.call("DEL", limited, pod)
        assert answer.code == 0
        assert scene.leftovers(pod) == [], f"before instant {at.event}"
        kill(scene, "ADD", limited, pod, at)
    assert scene.add(limited, pod) if scene.call("DEL", limited, pod).code == 0 else None
