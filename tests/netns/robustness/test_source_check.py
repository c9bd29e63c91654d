"""A hostile pod with NET_RAW: it sends from its own addresses alone, and claims no other's."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.netns.robustness import frames
from tests.netns.robustness.confs import BRIDGE, GATEWAYS, MODES, netconf
from tests.netns.robustness.frames import BROADCAST, PORT, ethernet, neighbour, send, udp
from tests.netns.robustness.scene import Attached, Scene
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import Family

MakePod = Callable[[], Namespace]
BOTH: tuple[Family, ...] = (4, 6)
STRANGERS: dict[Family, str] = {4: "8.8.8.8", 6: "2001:db8::8888"}
EVERYBODY, GROUP_MAC4 = "33:33:00:00:00:01", "01:00:5e:00:00:01"
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - a sender, where no address is bound yet
GROUP = "ff02::1:ff00:1"


def conf_of(mode: str, **keys: Any) -> Any:
    return netconf(mode, BOTH, **keys)


def mac_of(space: Namespace, link: str = "eth0") -> str:
    found = space.link(link)
    assert found is not None
    return str(found["address"])


def link_local(space: Namespace, link: str = "eth0") -> str:
    """A link's own address, which the kernel gives it some time after the carrier came."""
    found: list[str] = []

    def has_one() -> bool:
        found[:] = [
            str(info["local"])
            for entry in space.ip(f"-6 address show dev {link} scope link")
            for info in entry.get("addr_info", ())
            if info  # an empty object stands for what the scope filtered out
        ]
        return len(found) == 1

    eventually(has_one)
    return found[0]


@contextmanager
def receiving(attached: Attached, family: Family) -> Iterator[socket.socket]:
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with attached.pod.socket(kind, socket.SOCK_DGRAM) as found:
        found.bind((attached.address(family), PORT))
        found.settimeout(30)
        yield found


def first_hop(mode: str, scene: Scene, sender: Attached, receiver: Attached) -> str:
    """The MAC that a frame to the other pod goes to."""
    return mac_of(receiver.pod) if mode == "bridge" else mac_of(scene.node.ns, sender.host)


def sources_seen(
    scene: Scene, mode: str, family: Family, pods: list[Attached], sources: list[str], tags: int = 0
) -> list[str]:
    """What the receiver sees of packets from these sources, up to one from the pod's own."""
    sender, receiver = pods
    to, own = first_hop(mode, scene, sender, receiver), mac_of(sender.pod)
    datagrams = [udp(source, receiver.address(family)) for source in sources]
    last = udp(sender.address(family), receiver.address(family))
    with receiving(receiver, family) as listener:
        send(sender.pod, [ethernet(to, own, *each, tags) for each in datagrams])
        send(sender.pod, [ethernet(to, own, *last)])
        seen: list[str] = []
        while sender.address(family) not in seen:
            seen.append(str(listener.recvfrom(64)[1][0]))
    return seen[:-1]


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_other_sources_are_dropped(
    scene: Scene, make_pod: MakePod, mode: str, family: Family
) -> None:
    """As the node, another pod or a stranger; with priority tags that receivers ignore."""
    pods = [scene.add(conf_of(mode), make_pod(), f"c{n}") for n in range(3)]
    other = pods.pop()
    forged = [other.address(family), STRANGERS[family], GATEWAYS[family]]
    forged += [link_local(other.pod)] if family == 6 else []
    for tags in range(3):
        assert sources_seen(scene, mode, family, pods, forged, tags) == []


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_the_check_can_be_turned_off(
    scene: Scene, make_pod: MakePod, mode: str, family: Family
) -> None:
    conf = conf_of(mode, sourceCheck=False)
    pods = [scene.add(conf, make_pod(), f"c{n}") for n in range(2)]
    forged = [STRANGERS[family]]
    assert sources_seen(scene, mode, family, pods, forged) == forged


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("mode", MODES)
def test_pods_that_route_have_more_sources(
    scene: Scene, make_pod: MakePod, mode: str, family: Family
) -> None:
    conf = conf_of(mode, allowedSourcePrefixes=["8.8.8.0/25", "8.8.8.128/25", "2001:db8::/32"])
    pods = [scene.add(conf, make_pod(), f"c{n}") for n in range(2)]
    stranger = {4: "9.9.9.9", 6: "2001:db9::1"}[family]
    forged = [stranger, STRANGERS[family]]
    assert sources_seen(scene, mode, family, pods, forged) == [STRANGERS[family]]
    for attached in pods:
        assert scene.check(attached).code == 0
        scene.delete(attached)
    assert scene.leftovers(*(attached.pod for attached in pods)) == []


@pytest.mark.parametrize("mode", MODES)
def test_the_neighbour_table_is_not_filled(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(conf_of(mode), pod)
    link = BRIDGE if mode == "bridge" else attached.host
    own = mac_of(pod)
    arps = [frames.arp(own, f"10.77.0.{n}", GATEWAYS[4], 1) for n in range(100, 150)]
    asks = [
        neighbour(frames.SOLICIT, source, GATEWAYS[6], GATEWAYS[6], own)
        for n in range(100, 150)
        for source in (f"fe80::{n}", f"fd00:77::{n}")
    ]
    to = mac_of(scene.node.ns, link)
    send(pod, [ethernet(to, own, *each) for each in [*arps, *asks]])
    assert pod.ping(GATEWAYS[4])
    assert pod.ping(GATEWAYS[6])
    known = {entry["dst"] for entry in scene.node.ns.ip(f"neigh show dev {link}")}
    assert known <= {attached.address(4), attached.address(6), link_local(pod)}


def neighbours(space: Namespace) -> dict[str, str]:
    return {str(e["dst"]): str(e.get("lladdr")) for e in space.ip("neigh show dev eth0")}


CLAIMS = ["gateway", "pod", "gateway's link-local", "pod's link-local"]


@pytest.mark.parametrize("checked", [True, False])
def test_no_pod_claims_anothers_address(scene: Scene, make_pod: MakePod, checked: bool) -> None:
    """In ARP and neighbour discovery, to those that know the address already."""
    conf = conf_of("bridge", sourceCheck=checked)
    attacker, victim, other = (scene.add(conf, make_pod(), f"c{n}") for n in range(3))
    gateway, own = link_local(scene.node.ns, BRIDGE), mac_of(attacker.pod)
    claimed = [*GATEWAYS.values(), *map(other.address, BOTH), gateway, link_local(other.pod)]
    for address in claimed:
        assert victim.pod.ping(f"{address}%eth0" if address.startswith("fe80") else address)
    before = neighbours(victim.pod)
    claims = []
    for address in claimed:
        if ":" in address:
            source, to = attacker.address(6), victim.address(6)
            claims += [
                neighbour(frames.ADVERT, source, to, address, own),
                neighbour(frames.ADVERT, source, to, address, own, hop_by_hop=True),
                neighbour(frames.SOLICIT, address, to, to, own),
                *frames.fragments(neighbour(frames.ADVERT, source, to, address, own)[1], 8),
            ]
        else:
            claims += [frames.arp(own, address, victim.address(4), n) for n in (1, 2)]
    to = mac_of(victim.pod)

    def changed() -> set[str]:
        """Of which addresses the claims are believed."""
        for tags in range(3):
            send(attacker.pod, [ethernet(to, own, *claim, tags) for claim in claims])
        assert sources_seen(scene, "bridge", 4, [attacker, victim], []) == []
        after = neighbours(victim.pod)
        return {address for address in claimed if after.get(address) != before[address]}

    if checked:
        assert changed() == set()
    else:  # the kernel believes none for a second after a true one (net/ipv4/arp.c, locktime)
        eventually(lambda: (found := changed()) == set(claimed) or found)


@pytest.mark.parametrize("checked", [True, False])
def test_no_pod_plays_the_router_or_disturbs_an_addresss_trial(
    scene: Scene, make_pod: MakePod, checked: bool
) -> None:
    """Advertisements, and solicitations as of one that tries another's address (RFC 4862)."""
    conf = conf_of("bridge", sourceCheck=checked)
    attacker, victim = (scene.add(conf, make_pod(), f"c{n}") for n in range(2))
    own, target = mac_of(attacker.pod), "fd00:77::abcd"
    hostile = [
        frames.router(link_local(attacker.pod), own),
        neighbour(frames.SOLICIT, "::", "ff02::1:ff00:abcd", target, own),
        frames.report("::", GROUP),
    ]
    with victim.pod.call(listen_to_icmpv6) as listener:
        send(attacker.pod, [ethernet(EVERYBODY, own, *each) for each in hostile])
        received: list[bytes] = []
        while not received or types_of(received[-1]) != frames.MLD_REPORT:
            received.append(listener.recv(2048))
    kinds = [types_of(frame) for frame in received if frame[6:12] == frames.mac(own)]
    assert kinds[:-1] == ([] if checked else [frames.ROUTER_ADVERT, frames.SOLICIT])


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("what", ["query", "router", "query4", "router4"])
def test_no_pod_plays_the_multicast_router(
    scene: Scene, make_pod: MakePod, what: str, checked: bool
) -> None:
    """The bridge would forward to it, and to those that answered it, what others solicit."""
    conf = conf_of("bridge", sourceCheck=checked)
    pods = [scene.add(conf, make_pod(), f"c{n}") for n in range(2)]
    own, address = mac_of(pods[0].pod), pods[0].address(4)
    claim = {
        "query": lambda: frames.multicast_query(link_local(pods[0].pod), frames.MLD_QUERY),
        "router": lambda: frames.multicast_query(link_local(pods[0].pod), frames.MLD_ROUTER),
        "query4": lambda: frames.multicast_query4(address),
        "router4": lambda: frames.multicast_router4(address),
    }[what]()
    group = {frames.IPV4: GROUP_MAC4, frames.IPV6: EVERYBODY}[claim[0]]
    send(pods[0].pod, [ethernet(group, own, *claim)])
    assert sources_seen(scene, "bridge", 4, pods, []) == []
    routers = scene.node.ns.run(["bridge", "-d", "mdb", "show", "dev", BRIDGE]).stdout
    assert (pods[0].host in routers.partition("router ports on")[2]) is not checked


def test_a_pod_joins_groups(scene: Scene, make_pod: MakePod) -> None:
    """The bridge learns it from reports, those of IGMP, too."""
    pods = [scene.add(conf_of("bridge"), make_pod(), f"c{n}") for n in range(2)]
    own, group = mac_of(pods[0].pod), "239.1.2.3"
    report = frames.membership4(pods[0].address(4), group)
    send(pods[0].pod, [ethernet("01:00:5e:01:02:03", own, *report)])
    assert sources_seen(scene, "bridge", 4, pods, []) == []
    known = scene.node.ns.run(["bridge", "mdb", "show", "dev", BRIDGE]).stdout
    assert f"port {pods[0].host} grp {group} " in known


def listen_to_icmpv6() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frames.IPV6))
    raw.bind(("eth0", frames.IPV6))
    raw.settimeout(30)
    return raw


def types_of(frame: bytes) -> int:
    """The ICMPv6 type of a frame without extension headers; 0 for others."""
    return frame[54] if frame[20] == frames.ICMPV6 else 0


@pytest.mark.parametrize("mode", MODES)
def test_what_is_a_pods_own_passes(scene: Scene, make_pod: MakePod, mode: str) -> None:
    """Both families, link-local traffic, detection of duplicates, multicast reports, probes."""
    one, two = (scene.add(conf_of(mode, enabledad=True), make_pod(), f"c{n}") for n in range(2))
    own, link = mac_of(one.pod), BRIDGE if mode == "bridge" else one.host
    fine = [
        *(neighbour(frames.SOLICIT, "::", "ff02::1:ff00:1", target, own)
          for target in (one.address(6), link_local(one.pod))),
        neighbour(frames.ADVERT, one.address(6), "ff02::1", one.address(6), own),
        neighbour(frames.ADVERT, link_local(one.pod), "ff02::1", link_local(one.pod), own),
        frames.report("::", GROUP),
        frames.report(link_local(one.pod), GROUP),
        frames.arp(own, UNSPECIFIED, one.address(4), 1),
        frames.arp(own, one.address(4), one.address(4), 1),
    ]  # fmt: skip
    send(one.pod, [ethernet(BROADCAST, own, *each) for each in fine])
    for family in BOTH:
        assert one.pod.ping(GATEWAYS[family])
        assert one.pod.ping(two.address(family))
        assert scene.node.ns.ping(one.address(family))
        server = scene.node.underlay.ns.echo("udp", scene.node.underlay.gateway(family))
        scene.node.underlay.ns.ip_batch(
            f"route replace {one.address(family)} via {scene.node.address(family)}\n"
        )
        assert one.pod.exchange(server) == one.address(family)
    assert one.pod.ping(f"{link_local(scene.node.ns, link)}%eth0")
    dropped = re.findall(r"counter packets (\d+)", scene.ruleset())
    assert dropped
    assert set(dropped) == {"0"}


def test_a_reconfigured_pod_keeps_what_its_plan_had(scene: Scene, make_pod: MakePod) -> None:
    """An address that the pod gives itself does not serve, nor another pod's MAC."""
    attacker, victim, other = (scene.add(conf_of("bridge"), make_pod(), f"c{n}") for n in range(3))
    stolen = mac_of(victim.pod)
    send(
        attacker.pod,
        [ethernet(BROADCAST, stolen, *frames.arp(stolen, attacker.address(4), GATEWAYS[4]))],
    )
    assert attacker.pod.ping(GATEWAYS[4])
    fdb = scene.node.ns.run(["bridge", "fdb", "show", "br", BRIDGE]).stdout
    assert f"{stolen} dev {victim.host} " in fdb
    assert other.pod.ping(victim.address(4))
