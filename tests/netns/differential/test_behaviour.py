"""What pods can and cannot do on a network: the same traffic through either implementation."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netns.differential.cases import CASES, DEFAULT4, DEFAULT6, DUAL, V6, Case, bridge, ptp
from tests.netns.differential.conftest import MakeWorld
from tests.netns.differential.world import World
from tests.pytest_netns import MakeNamespace, Namespace
from tests.pytest_netns.underlay import Family

DUAL_ROUTES = (DEFAULT4, DEFAULT6)
NETWORKS = [
    pytest.param(bridge("dual", {"isDefaultGateway": True}, ranges=DUAL), id="bridge"),
    pytest.param(ptp("dual", ranges=DUAL, routes=DUAL_ROUTES), id="ptp"),
]
MASQUERADED = [
    pytest.param(
        bridge("masquerade", {"isDefaultGateway": True, "ipMasq": True}, ranges=DUAL), id="bridge"
    ),
    pytest.param(ptp("masquerade", {"ipMasq": True}, ranges=DUAL, routes=DUAL_ROUTES), id="ptp"),
]
FAMILIES: tuple[Family, Family] = (4, 6)

PROTOCOL = 0x88B5
"""EtherType for local experiments (IEEE 802, "Local Experimental Ethertype 1")."""


@pytest.fixture(
    params=["podwire", pytest.param("newest", marks=pytest.mark.needs("newest-reference"))]
)
def world(request: pytest.FixtureRequest, make_world: MakeWorld, podwire_bin: Path) -> World:
    """A world with either implementation."""
    if request.param == "podwire":
        return make_world(podwire_bin)
    newest = request.getfixturevalue("newest_reference_bin")
    assert isinstance(newest, Path)
    world = make_world(newest)
    world.settles = True  # podwire's pods have their network when ADD returns; no waiting there
    return world


def address(world: World, pod: int, family: Family) -> str:
    """Address of a pod, from the result."""
    found = [str(ip["address"]).split("/")[0] for ip in world.results[pod]["ips"]]
    return next(ip for ip in found if (":" in ip) == (family == 6))


def gateway(world: World, pod: int, family: Family) -> str:
    """Gateway of a pod, from the result."""
    found = [ip["gateway"] for ip in world.results[pod]["ips"]]
    return str(next(ip for ip in found if (":" in ip) == (family == 6)))


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_pods_reach_each_other_their_gateway_and_the_node(
    world: World, case: Case, family: Family
) -> None:
    one, other = world.add(case), world.add(case)
    server = other.echo("tcp", address(world, 1, family))
    assert one.exchange(server) == address(world, 0, family)
    assert one.ping(gateway(world, 0, family))
    assert one.ping(world.node.address(family))
    assert world.node.ns.ping(address(world, 0, family))


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_without_masquerade_the_world_sees_the_pod(
    world: World, case: Case, family: Family
) -> None:
    pod = world.add(case)
    mine = address(world, 0, family)
    world.underlay.ns.ip_batch(f"route add {mine} via {world.node.address(family)}")
    server = world.underlay.ns.echo("tcp", world.underlay.gateway(family))
    assert pod.exchange(server) == mine


@pytest.mark.parametrize("case", MASQUERADED)
@pytest.mark.parametrize("family", FAMILIES)
def test_with_masquerade_the_world_sees_the_node_and_pods_see_pods(
    world: World, case: Case, family: Family
) -> None:
    one, other = world.add(case), world.add(case)
    outside = world.underlay.ns.echo("udp", world.underlay.gateway(family))
    assert one.exchange(outside) == world.node.address(family)
    inside = other.echo("tcp", address(world, 1, family))
    if case.plugin == "bridge":
        assert one.exchange(inside) == address(world, 0, family)
    assert one.exchange(inside)


@pytest.mark.parametrize("case", MASQUERADED)
def test_a_pod_keeps_its_network_when_another_leaves(world: World, case: Case) -> None:
    world.add(case)
    stays = world.add(case)
    assert world.call("DEL", case, 0, prevResult=world.results[0]).code == 0
    outside = world.underlay.ns.echo("tcp", world.underlay.gateway(4))
    assert stays.exchange(outside) == world.node.address(4)


@pytest.mark.parametrize("name", ["bridge-mtu", "ptp-mtu"])
def test_mtu_bounds_packets(world: World, name: str) -> None:
    pod = world.add(CASES[name])
    assert pod.ping(gateway(world, 0, 4), size=1400, fragment=False)
    assert not pod.ping(gateway(world, 0, 4), size=1401, fragment=False, seconds=2)


def test_isolated_ports_reach_the_gateway_but_not_each_other(world: World) -> None:
    case = CASES["bridge-port-isolation"]
    one, other = world.add(case), world.add(case)
    assert not one.ping(address(world, 1, 4), seconds=2)
    assert one.ping(gateway(world, 0, 4))
    assert other.ping(gateway(world, 1, 4))


@pytest.mark.parametrize(("name", "passes"), [("gateway", True), ("mac-spoof-check", False)])
def test_a_frame_with_a_foreign_source_passes_only_unchecked(
    world: World, name: str, passes: bool
) -> None:
    case = CASES[f"bridge-{name}"]
    one, other = world.add(case), world.add(case)
    with frames(one) as sender, frames(other) as receiver:
        send(sender, b"foreign", "02:99:99:99:99:99")
        send(sender, b"own", mac(one))
        # Frames keep their order: what comes before "own" is all that will come.
        assert payloads(receiver, b"own") == ([b"foreign"] if passes else [])


@pytest.mark.parametrize(("name", "returns"), [("gateway", False), ("hairpin", True)])
def test_a_frame_comes_back_to_its_sender_only_by_hairpin(
    world: World, name: str, returns: bool
) -> None:
    case = CASES[f"bridge-{name}"]
    one, other = world.add(case), world.add(case)
    with frames(one) as sender, frames(other) as receiver:
        send(sender, b"hello", mac(one))
        assert payloads(receiver, b"hello") == []
        send(receiver, b"answer", mac(other))
        assert payloads(sender, b"answer") == ([b"hello"] if returns else [])


def test_detection_refuses_an_address_that_a_neighbour_has(
    world: World, netns: MakeNamespace
) -> None:
    neighbour, case = netns("neighbour"), bridge("detection", {"enabledad": True}, ranges=((V6,),))
    world.node.ns.ip_batch(
        "link add cni0 type bridge\nlink set cni0 up\n"
        f"link add lan type veth peer name eth0 netns {neighbour.name}\n"
        "link set lan master cni0 up\n"
    )
    neighbour.ip_batch("link set eth0 up\naddress add 2001:db8:20::2/64 dev eth0 nodad\n")
    world.pods.append(world.make_pod())
    answer = world.call("ADD", case, 0)
    assert answer.code == 1, answer
    assert "2001:db8:20::2" in answer.json["msg"]


@contextmanager
def frames(pod: Namespace) -> Iterator[socket.socket]:
    """A socket for frames of this file's protocol on the pod's eth0."""
    with pod.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as opened:
        opened.bind(("eth0", PROTOCOL))
        opened.settimeout(60)
        yield opened


def mac(pod: Namespace) -> str:
    link = pod.link("eth0")
    assert link is not None
    return str(link["address"])


def send(sender: socket.socket, payload: bytes, source: str) -> None:
    """Broadcast a frame; `source` as its sender's MAC."""
    header = b"\xff" * 6 + bytes.fromhex(source.replace(":", "")) + PROTOCOL.to_bytes(2)
    sender.send((header + payload).ljust(60, b"\0"))


def payloads(receiver: socket.socket, last: bytes) -> list[bytes]:
    """Payloads that arrive before `last` does; TimeoutError if it never does."""
    found: list[bytes] = []
    while True:
        frame, info = receiver.recvfrom(2048)
        payload = frame[14:].rstrip(b"\0")
        if info[2] == socket.PACKET_OUTGOING:  # type: ignore[attr-defined, unused-ignore]
            continue
        if payload == last:
            return found
        found.append(payload)
