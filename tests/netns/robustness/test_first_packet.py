"""What a pod sends first gets through: nothing waits for duplicate address detection."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import BRIDGE, GATEWAYS, MODES, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import Family

MakePod = Callable[[], Namespace]
BOTH: tuple[Family, ...] = (4, 6)
AGAIN = range(5)
"""A race that is lost now and then shows in some of these."""


def add(scene: Scene, mode: str, pod: Namespace, container_id: str) -> Attached:
    return scene.add(netconf(mode, BOTH, ipMasq=True), pod, container_id)


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_to_the_gateway(scene: Scene, make_pod: MakePod, mode: str, family: Family) -> None:
    for number in AGAIN:
        attached = add(scene, mode, make_pod(), f"c{number}")
        assert attached.pod.ping_once(GATEWAYS[family])
        scene.delete(attached)


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_from_pod_to_pod(scene: Scene, make_pod: MakePod, mode: str, family: Family) -> None:
    old = add(scene, mode, make_pod(), "old")
    server = old.pod.echo("udp", old.address(family))
    for number in AGAIN:
        new = add(scene, mode, make_pod(), f"c{number}")
        assert new.pod.exchange(server) == new.address(family)
        other = add(scene, mode, make_pod(), f"d{number}")
        assert old.pod.ping_once(other.address(family))


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_to_the_world_and_from_the_node(
    scene: Scene, make_pod: MakePod, mode: str, family: Family
) -> None:
    underlay = scene.node.underlay
    server = underlay.ns.echo("udp", underlay.gateway(family))
    for number in AGAIN:
        attached = add(scene, mode, make_pod(), f"c{number}")
        assert attached.pod.exchange(server) == scene.node.address(family)
        attached = add(scene, mode, make_pod(), f"d{number}")
        assert scene.node.ns.ping_once(attached.address(family))


@pytest.mark.parametrize("mode", MODES)
def test_no_address_is_on_trial(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = add(scene, mode, pod, "c1")
    node_end = BRIDGE if mode == "bridge" else attached.host  # whose IPv6 the node uses
    for space, link in ((pod, "eth0"), (scene.node.ns, node_end)):
        for entry in space.ip(f"-6 address show dev {link}"):
            assert [info for info in entry.get("addr_info", []) if "tentative" in info] == []


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_address_that_was_anothers(
    scene: Scene, make_pod: MakePod, mode: str, family: Family
) -> None:
    """The node and old neighbours have the address in their caches, with the old pod's link."""
    one = {
        4: {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.2", "rangeEnd": "10.77.0.3"},
        6: {"subnet": "fd00:77::/64", "rangeStart": "fd00:77::2", "rangeEnd": "fd00:77::3"},
    }[family]
    conf = netconf(mode, (family,), ipam={**netconf(mode, (family,))["ipam"], "ranges": [[one]]})
    neighbour = scene.add(conf, make_pod(), "neighbour")
    for number in AGAIN:
        attached = scene.add(conf, make_pod(), f"c{number}")
        for source in (neighbour.pod, scene.node.ns):
            assert source.ping_once(attached.address(family))
        scene.delete(attached)


def next_index(space: Namespace) -> int:
    """The index that the namespace's next link will have; the kernel uses none twice."""
    space.ip_batch("link add probe type bridge\n")
    probe = space.link("probe")
    assert probe is not None
    space.ip_batch("link delete probe\n")
    return int(probe["ifindex"]) + 1


@pytest.mark.parametrize("mode", MODES)
def test_ends_with_the_same_index(scene: Scene, make_pod: MakePod, mode: str) -> None:
    """The kernel takes them for one link and lets the carrier wait for up to a second.

    The pod sends meanwhile, but is asked for its address in vain (linkwatch_urgent_event in
    net/core/link_watch.c compares the numbers alone).
    """
    add(scene, mode, make_pod(), "first")
    for number in AGAIN:
        pod = make_pod()
        wanted = next_index(scene.node.ns)
        while next_index(pod) < wanted:
            pass
        attached = add(scene, mode, pod, f"c{number}")
        # Listed, for asking for one link by name makes the kernel do what was left undone.
        links = {link["ifname"]: link for link in pod.ip("link show")}
        assert links["eth0"]["ifindex"] == wanted
        assert links["eth0"]["link_index"] == wanted
        assert links["eth0"]["operstate"] == "UP"
        assert scene.node.ns.ping_once(attached.address(6))
