"""Ways between the ports of a bridge that go past addresses or past the filters of packets."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.netns.policy.conftest import Pod, World, labelled, policy
from tests.netns.policy.test_changes import differences
from tests.netns.robustness import frames
from tests.netns.robustness.test_source_check import link_local, mac_of
from tests.netns.routing.conftest import eventually

DENY = policy("app", "deny", podSelector=labelled(app="web"), ingress=[])


@pytest.fixture
def mode() -> str:
    return "bridge"


@pytest.fixture
def pods(world: World) -> tuple[Pod, Pod]:
    one, _two = world.members
    made = world.pod(one, "app", "web", app="web"), world.pod(one, "app", "bad", role="bad")
    world.write_pods(app={})
    return made


def arrives(source: Pod, target: Pod, family: int, tag: bytes = b"") -> bool:
    """Whether a datagram that the source writes as a frame does."""
    to, own = mac_of(target.ns), mac_of(source.ns)
    datagram = frames.udp(source.addresses[family], target.addresses[family])
    frame = frames.ethernet(to, own, *datagram)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with target.ns.socket(kind, socket.SOCK_DGRAM) as server:
        server.bind((target.addresses[family], frames.PORT))
        server.settimeout(1)
        frames.send(source.ns, [frame[:12] + tag + frame[12:]])
        try:
            return server.recv(64) == b"packet"
        except TimeoutError:
            return False


def test_a_priority_tag_hides_nothing(world: World, pods: tuple[Pod, Pod]) -> None:
    web, bad = pods
    # A new port of a bridge forwards a moment late.
    eventually(lambda: arrives(bad, web, 4) and arrives(bad, web, 6))
    world.enforce(DENY)
    tags = b"", bytes.fromhex("81000000"), bytes.fromhex("8100e000"), bytes.fromhex("88a80000")
    tries = [(tag, family) for tag in tags for family in (4, 6)]
    assert [each for each in tries if arrives(bad, web, each[1], each[0])] == []


def talks(source: Pod, target: Pod) -> bool:
    """Whether a connection to the link-local address succeeds."""
    to = link_local(target.ns)
    link = source.ns.link("eth0")
    assert link
    with target.ns.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
        server.bind(("::", 7000))
        server.listen()
        with source.ns.socket(socket.AF_INET6, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            try:
                client.connect((to, 7000, 0, link["ifindex"]))
            except OSError:
                return False
            return True


def test_link_local_addresses_are_the_pods(world: World, pods: tuple[Pod, Pod]) -> None:
    web, bad = pods
    node = web.member.node
    eventually(lambda: talks(bad, web))
    world.enforce(DENY)
    assert not talks(bad, web)
    eventually(lambda: talks(web, bad))
    # With a port of somebody else what is not known passes.
    node.run(["ip", "link", "add", "other", "type", "veth", "peer", "name", "end"])
    node.run(["ip", "link", "set", "other", "master", "cni0", "up"])
    bridges = ["nft", "list", "set", "inet", "podwire-policy", "bridges"]
    eventually(lambda: "cni0" not in node.run(bridges).stdout)
    assert not talks(bad, web)
    eventually(lambda: talks(web, bad))
    assert differences(web) == []
    # So it is after a restart, too.
    again = "restored nftables rules of"
    before = web.member.log.count(again)
    web.member.stop(signal.SIGKILL)
    web.member.start()
    eventually(lambda: web.member.log.count(again) > before or web.member.log)
    assert "cni0" not in node.run(bridges).stdout


def test_the_first_pod_is_closed_until_the_daemon_is_back(world: World) -> None:
    one, two = world.members
    far = world.pod(two, "app", "far", role="good")
    world.write_pods(app={})
    world.enforce(DENY)
    one.stop(signal.SIGKILL)
    web = world.pod(one, "app", "web", app="web")
    assert not web.reaches(far)
    assert not far.reaches(web, family=6)
    one.start()
    eventually(lambda: web.reaches(far))
    world.write_pods(app={})
    eventually(lambda: not far.reaches(web))
