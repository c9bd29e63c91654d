"""Nodes join, leave and change; pods reach each other all the while."""

import json
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually
from tests.netns.routing.test_drift import RATES
from tests.netns.routing.traffic import Stream, address, reach

Pair = tuple[Member, Member]


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "hybrid"])
@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_pods_reach_each_other(
    cluster: Cluster, podwire_bin: Path, backend: str, outer: str
) -> None:
    pair = [cluster.join(backend=backend, underlay=outer) for _ in range(2)]
    cluster.settle()
    one, two = (m.attach(podwire_bin / "podwire") for m in pair)
    assert reach(one, two)
    link = one.link("eth0")
    overhead = {"ipv4": 50, "ipv6": 70}[outer] if backend != "host-gw" else 0
    assert link is not None
    assert link["mtu"] == 1500 - overhead
    assert (pair[0].node.ns.link(DEVICE) is None) == (backend == "host-gw")
    # What arrives has the pod's own address: traffic between nodes is not masqueraded.
    for version in (4, 6):
        server = two.echo("tcp", address(two, version))
        assert one.exchange(server) == address(one, version)
    # Node to pod, and the reverse way.
    assert pair[0].node.ns.ping(address(two))


def test_traffic_to_the_world_is_masqueraded(pair: Pair, podwire_bin: Path) -> None:
    pod = pair[0].attach(podwire_bin / "podwire")
    world = pair[0].node.underlay.ns
    server = world.echo("tcp", pair[0].node.underlay.gateway(4))
    assert pod.exchange(server) == pair[0].addresses[0]


OTHERS_SUBNETS = {4: "10.4.0.0/24", 6: "fd00:4::/64"}


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_pods_of_other_networks_reach_the_cluster_by_their_node(
    cluster: Cluster, podwire_bin: Path, backend: str
) -> None:
    """No node has a route to what another runtime or network of the node gives its pods."""
    one, two = (cluster.join(backend=backend) for _ in range(2))
    cluster.settle()
    ranges = [[{"subnet": subnet}] for subnet in OTHERS_SUBNETS.values()]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    other = {
        "name": "other",
        "type": "bridge",
        "bridge": "nerdctl0",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
    }
    pod, peer = one.attach(podwire_bin / "bridge", **other), two.attach(podwire_bin / "podwire")
    overlay = backend == "vxlan"
    own = ["10.244.1.0", "fd00:10:244:1::"] if overlay else one.addresses
    for version, node in zip((4, 6), own, strict=True):
        assert pod.exchange(peer.echo("tcp", address(peer, version))) == node


def test_rules_come_back_with_what_pods_need(pair: Pair, podwire_bin: Path) -> None:
    pod = pair[0].attach(podwire_bin / "podwire")
    node = pair[0].node

    def rules() -> str:
        # Without what packets add and count.
        listed = node.run(["nft", "--stateless", "list", "ruleset"], check=False).stdout
        return RATES.sub("", listed)

    before = rules()
    assert f". {address(pod)} . {address(pod)}" in before  # the pod's own member
    node.run(["nft", "flush", "ruleset"])
    eventually(lambda: sorted(rules().split()) == sorted(before.split()) or rules())
    server = node.underlay.ns.echo("tcp", node.underlay.gateway(4))
    assert pod.exchange(server) == pair[0].addresses[0]


def test_the_rules_outlive_the_last_pod(pair: Pair, podwire_bin: Path) -> None:
    """Its successor's first packet to another node must not be masqueraded."""
    pods = [m.attach(podwire_bin / "podwire") for m in pair]
    listed = json.loads(pair[0].conflist.read_text())
    conf = {**listed["plugins"][0], "name": listed["name"], "cniVersion": listed["cniVersion"]}
    node = pair[0].node
    assert node.cni("DEL", podwire_bin / "podwire", conf, container_id="c1").code == 0
    assert "10.244.1.0" in node.run(["nft", "list", "set", "inet", "podwire", "cluster4"]).stdout
    successor = pair[0].attach(podwire_bin / "podwire")
    server = pods[1].echo("udp", address(pods[1]))
    assert successor.exchange(server) == address(successor)


def test_nodes_join_and_leave(cluster: Cluster, podwire_bin: Path) -> None:
    pair = cluster.join(), cluster.join()
    cluster.settle()
    third = cluster.join()
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in (*pair, third)]
    assert reach(pods[0], pods[2])
    assert reach(pods[2], pods[1])
    assert pair[0].fdb() == {pair[1].addresses[0], third.addresses[0]}
    cluster.write(node_3=None)
    for member in pair:
        others = [m for m in pair if m is not member]
        eventually(partial(member.has_routes, {c for m in others for c in m.cidrs}))
        eventually(partial(has_fdb, member, {m.addresses[0] for m in others}))
    assert reach(pods[0], pods[1])
    eventually(lambda: actions(pair[0], "10.244.3.0/24") == ["added", "removed"])
    # The node that was left out keeps what it had, and says that it is none of the cluster.
    eventually(lambda: "the source has no node node-3" in str(third.status()["troubles"]))
    assert third.routes() >= set(pair[0].cidrs)
    assert "1 nodes left the source: node-3" in pair[0].log


def has_fdb(member: Member, wanted: set[str]) -> object:
    """True where the device knows these VTEPs; routes may change a moment before its entries."""
    return member.fdb() == wanted or (member.fdb(), member.log)


def test_a_node_moves_to_other_prefixes(cluster: Cluster) -> None:
    one, two = cluster.join(), cluster.join()
    cluster.settle()
    moved = ["10.244.77.0/24", "fd00:10:244:77::/64"]
    cluster.write(node_2={"podCIDRs": moved})
    eventually(lambda: one.routes() == set(moved) or one.log)
    eventually(lambda: two.node.ns.addresses(DEVICE) == {"10.244.77.0/32", "fd00:10:244:77::/128"})
    eventually(lambda: "10.244.77.0/24" in two.conflist.read_text())
    eventually(lambda: one.node.ns.ping("10.244.77.0"))


def test_a_node_moves_to_another_address(cluster: Cluster, podwire_bin: Path) -> None:
    one, two = cluster.join(), cluster.join()
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in (one, two)]
    two.node.ns.ip_batch(
        f"address del {two.addresses[0]}/24 dev eth0\naddress add 192.0.2.200/24 dev eth0\n"
        f"route add default via {two.node.underlay.gateway(4)}\n"
    )
    cluster.write(node_2={"addresses": ["192.0.2.200", two.addresses[1]]})
    eventually(lambda: one.fdb() == {"192.0.2.200"} or one.log)
    eventually(lambda: (reach(pods[0], pods[1]) and reach(pods[1], pods[0])) or two.log)


def test_two_nodes_with_one_prefix(cluster: Cluster, podwire_bin: Path) -> None:
    one, two = cluster.join(), cluster.join()
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in (one, two)]
    cluster.join(start=False)
    cluster.write(node_3={"podCIDRs": ["10.244.2.0/25", "10.244.3.0/24"]})
    eventually(lambda: "10.244.3.0/24" in one.routes())
    assert "10.244.2.0/25" not in one.routes()
    assert reach(*pods)
    eventually(lambda: bool(one.status()["refused"]))
    [refused] = one.status()["refused"]
    assert (refused["node"], refused["prefix"]) == ("node-3", "10.244.2.0/25")
    assert "node-2" in refused["why"]
    eventually(lambda: actions(one, "10.244.2.0/25") == ["refused"])


def test_a_broken_list_changes_nothing(cluster: Cluster) -> None:
    one, two = cluster.join(), cluster.join()
    cluster.settle()
    before = one.routes()
    cluster.file.write_text('{"nodes": [{"name": "node-1", "addresses": ["nonsense"')
    eventually(lambda: "last good state" in str(one.status()["troubles"]))
    assert one.routes() == before
    cluster.write(node_2=None)
    eventually(lambda: one.routes() == set())
    eventually(lambda: "last good state" not in str(one.status()["troubles"]))
    assert two.process is not None


def test_a_list_that_was_never_right_is_no_last_good_state(cluster: Cluster) -> None:
    member = cluster.join(start=False)
    cluster.file.write_text("{")
    member.start()
    eventually(lambda: "no state of the cluster is known" in str(member.status()))
    assert "last good state" not in str(member.status())
    cluster.write()
    eventually(lambda: "state of the cluster" not in str(member.status()["troubles"]))


def actions(member: Member, wanted: str) -> list[str]:
    """What the journal says was done about it; shortly after it was done."""
    return [record["action"] for record in member.history(wanted)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_loses_no_packet(
    cluster: Cluster, podwire_bin: Path, number: signal.Signals
) -> None:
    pair = cluster.join(), cluster.join()
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in pair]
    assert reach(*pods)
    stream = Stream(pods[0], pods[1])
    with subprocess.Popen(
        ["ip", "-n", pair[0].node.ns.name, "monitor", "route", "neigh", "link"],
        stdout=subprocess.PIPE,
        text=True,
    ) as monitor:
        for member in pair:
            length = len(member.history())
            assert member.stop(number) == (0 if number == signal.SIGTERM else -number)
            member.start()
            eventually(member.is_in_sync)
            done = [r for r in member.history()[length:] if not r["object"].startswith("peer ")]
            assert done == []  # but that the other's probes may have been refused meanwhile
        time.sleep(0.2)
        assert stream.lost() == 0
        monitor.terminate()
        seen = monitor.stdout.read() if monitor.stdout else ""
    withdrawn = [
        line for line in seen.splitlines() if line.startswith("Deleted") and "proto" in line
    ]
    assert withdrawn == []


def test_what_happened_while_no_daemon_ran(cluster: Cluster) -> None:
    one, _two = cluster.join(), cluster.join()
    cluster.settle()
    one.stop()
    before = one.routes()
    one.node.run(["ip", "route", "del", "10.244.2.0/24"])
    one.node.run(["ip", "route", "add", "10.98.0.0/16", "via", "192.0.2.1", "proto", "113"])
    one.node.run(["ip", "route", "add", "10.97.0.0/16", "via", "192.0.2.1"])
    one.start()
    eventually(lambda: one.routes() == before or one.log)
    assert one.node.ip("route show 10.97.0.0/16")  # not podwire's


@pytest.mark.parametrize("path", ["vxlan host-gw vxlan", "vxlan none", "hybrid none"])
def test_another_back_end(cluster: Cluster, podwire_bin: Path, path: str) -> None:
    old, *others = path.split()
    pair = cluster.join(backend=old), cluster.join(backend=old)
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in pair]
    assert reach(*pods)
    for new in others:
        for member in pair:
            member.stop()
            member.start(backend=new)
        for member, other in (pair, pair[::-1]):
            wanted: set[str] = set() if new == "none" else set(other.cidrs)
            eventually(partial(member.has_routes, wanted))
            eventually(member.is_in_sync)
            assert (member.node.ns.link(DEVICE) is None) == (new != "vxlan")
        for version in (4, 6) if new != "none" else ():
            # Not as large as before: pods keep the MTU that they were given.
            assert pods[0].ping(address(pods[1], version))


def is_in(member: Member, backend: str) -> object:
    """True once the daemon that runs says that it has the back end."""
    return member.status().get("backend") == backend or member.log


def test_back_ends_are_changed_under_traffic_by_way_of_hybrid(
    cluster: Cluster, podwire_bin: Path
) -> None:
    """A node in hybrid understands both others: no packet is lost, in whatever order they turn."""
    pair = cluster.join(backend="vxlan"), cluster.join(backend="vxlan")
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in pair]
    assert reach(*pods)
    streams = [Stream(pods[0], pods[1], version) for version in (4, 6)]
    for number, backend in enumerate(("hybrid", "host-gw", "hybrid", "vxlan")):
        for member in pair[:: -1 if number % 2 else 1]:
            member.stop()
            member.start(backend=backend)
            eventually(partial(is_in, member, backend))
            eventually(member.is_in_sync)
        for member, other in (pair, pair[::-1]):
            vteps = {other.addresses[0]} if backend == "vxlan" else set()
            eventually(partial(has_fdb, member, vteps))  # hybrid encapsulates nothing on-link
            assert (member.node.ns.link(DEVICE) is None) == (backend == "host-gw")
    assert [stream.lost() for stream in streams] == [0, 0]
    assert reach(*pods)


def test_networks_that_pods_may_be_in(cluster: Cluster, podwire_bin: Path) -> None:
    """A site routes all private addresses to its router: pods' prefixes are narrower."""
    pair = cluster.prepare(), cluster.prepare()
    cluster.write()
    site = ["10.0.0.0/8", "fd00::/8"]
    for member in pair:
        underlay = member.node.underlay
        member.node.ip(f"route add {site[0]} via {underlay.gateway(4)}")
        member.node.ip(f"-6 route add {site[1]} via {underlay.gateway(6)}")
        member.start(allowOverlap=site)
    cluster.settle()
    assert reach(*(m.attach(podwire_bin / "podwire") for m in pair))


def test_the_conflist_comes_with_readiness(cluster: Cluster, podwire_bin: Path) -> None:
    one = cluster.prepare()
    cluster.prepare()
    cluster.write(node_1=None)
    one.start()
    eventually(lambda: "has no node node-1" in str(one.status().get("troubles")) or one.log)
    assert not one.conflist.exists()
    conf = {"cniVersion": "1.1.0", "name": "podwire", "type": "podwire", "ipam": {}}

    def code(name: str = "podwire") -> int:
        answer = one.node.cni("STATUS", podwire_bin / "podwire", {**conf, "name": name})
        return int(answer.json["code"]) if answer.code else 0

    ranges = [[{"subnet": "10.244.1.0/24"}]]
    conf["ipam"] = {"ranges": ranges}
    assert code() == 50
    assert code("another") == 0
    cluster.write()
    eventually(lambda: one.conflist.exists() or one.log)
    eventually(lambda: code() == 0 or one.log)
    listed = json.loads(one.conflist.read_text())
    assert listed["name"] == "podwire"
    assert listed["plugins"][0]["mtu"] == 1450
    # Whoever alters it gets it back; it stays when the daemon ends.
    one.conflist.write_text(json.dumps({**listed, "plugins": []}))
    eventually(lambda: json.loads(one.conflist.read_text()) == listed)
    one.stop()
    assert json.loads(one.conflist.read_text()) == listed


def test_somebody_who_keeps_removing_routes(pair: Pair) -> None:
    one, _two = pair
    script = "while ip route del 10.244.2.0/24 2>/dev/null || sleep 0.02; do :; done"
    begin = time.monotonic()
    with subprocess.Popen([*one.node.enter, "sh", "-c", script]) as rival:
        try:
            eventually(lambda: any(r["action"] == "flapping" for r in one.history()) or one.log)
            time.sleep(2)
        finally:
            rival.kill()
    took = time.monotonic() - begin
    restored = [r for r in one.history("10.244.2.0/24") if r["action"] == "restored"]
    assert len(restored) <= 4 * took + 2
    assert len([r for r in one.history() if r["action"] == "flapping"]) == 1
    assert "8 times" in one.log
    eventually(lambda: one.routes() >= {"10.244.2.0/24"})
