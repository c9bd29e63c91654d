"""The kernel tracks connections because of podwire only while something of podwire's needs it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import DEFAULT_ROUTES, MODES, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import Family

MakePod = Callable[[], Namespace]
FAMILIES: tuple[Family, ...] = (4, 6)
NEEDS: dict[str, dict[str, Any]] = {
    "masquerade": {"ipMasq": True},
    "hairpin": {"hairpinMode": True},
    "ports": {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}},
    "ports, snat off": {
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
        "snat": False,
    },
}


def plain_conf(mode: str) -> Conf:
    """Another network of the node, with nothing of that."""
    subnets = ("10.78.0.0/24", "fd00:78::/64")
    routes = [{"dst": DEFAULT_ROUTES[family]} for family in FAMILIES]
    addresses = {"ranges": [[{"subnet": subnet}] for subnet in subnets], "routes": routes}
    conf = netconf(mode, name="plain", ipam=addresses)
    return conf | ({"bridge": "pwbr1"} if mode == "bridge" else {})


def entries(scene: Scene) -> int:
    return int(scene.node.ns.sysctl("netfilter/nf_conntrack_count"))


def made(scene: Scene) -> set[str]:
    """The chains that there are."""
    return set(re.findall(r"chain \w+", scene.ruleset()))


def exchange_all(scene: Scene, *attached: Attached) -> None:
    """Traffic of each pod with the others, with the node and with the outside, both ways."""
    outside = scene.node.underlay.ns
    for family in FAMILIES:
        for one in attached:
            for protocol in ("tcp", "udp"):
                server = one.pod.echo(protocol, one.address(family))
                assert outside.exchange(server)
                assert scene.node.ns.exchange(server)
                for other in attached:
                    assert other is one or other.pod.exchange(server)
                assert one.pod.exchange(outside.echo(protocol, outside_address(scene, family)))
            assert outside.ping(one.address(family))


def outside_address(scene: Scene, family: Family) -> str:
    return scene.node.underlay.gateway(family)


@pytest.fixture
def routed(scene: Scene) -> Scene:
    """A node whose pods the outside has routes to."""
    for net in (77, 78):
        prefixes: dict[Family, str] = {4: f"10.{net}.0.0/24", 6: f"fd00:{net}::/64"}
        for family, prefix in prefixes.items():
            via = scene.node.address(family)
            scene.node.underlay.ns.ip_batch(f"route add {prefix} via {via}")
    return scene


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_tracked_without_need(routed: Scene, make_pod: MakePod, mode: str) -> None:
    conf = netconf(mode, (4, 6))
    pods = [routed.add(conf, make_pod(), name) for name in ("one", "two")]
    exchange_all(routed, *pods)
    assert entries(routed) == 0
    assert all(routed.check(attached).code == 0 for attached in pods)
    for attached in pods:
        routed.delete(attached)
    assert routed.leftovers() == []


@pytest.mark.parametrize("what", NEEDS)
@pytest.mark.parametrize("mode", MODES)
def test_tracking_begins_with_the_first_need_and_ends_with_the_last(
    routed: Scene, make_pod: MakePod, mode: str, what: str
) -> None:
    plain = routed.add(plain_conf(mode), make_pod(), "plain")
    rules = made(routed)
    needy = [
        routed.add(netconf(mode, (4, 6), **NEEDS[what]), make_pod(), "first"),
        routed.add(netconf(mode, (4, 6), **(NEEDS[what] if "port" not in what else {})),
                   make_pod(), "second"),
    ]  # fmt: skip
    exchange_all(routed, plain)
    assert entries(routed) > 0
    assert all(routed.check(attached).code == 0 for attached in (plain, *needy))
    for attached in needy[::-1]:
        assert "nat hook" in routed.ruleset()
        routed.delete(attached)
    assert made(routed) == rules
    routed.node.ns.run(["conntrack", "-F"])
    eventually(lambda: entries(routed) == 0 or entries(routed))
    exchange_all(routed, plain)
    assert entries(routed) == 0
    assert routed.check(plain).code == 0


def test_a_killed_del_leaves_nothing_that_gc_does_not_end(routed: Scene, make_pod: MakePod) -> None:
    plain = routed.add(plain_conf("ptp"), make_pod(), "plain")
    rules = made(routed)
    needy = routed.add(netconf("ptp", (4, 6), hairpinMode=True), make_pod(), "needy")
    routed.query("DELETE FROM attachment WHERE container_id = 'needy'")
    routed.node.ns.ip_batch(f"link delete {needy.host}")
    for name in ("hairpin4", "hairpin6"):
        routed.node.ns.run(["nft", "flush", "set", "inet", "podwire", name])
    assert routed.gc(plain_conf("ptp"), [("plain", "eth0")]).code == 0
    assert made(routed) == rules
    assert routed.check(plain).code == 0
