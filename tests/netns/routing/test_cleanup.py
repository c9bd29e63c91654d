"""`podwirectl cleanup`: what the daemon leaves is taken away, what others have stays."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually
from tests.pytest_netns import changes, snapshot

Done = subprocess.CompletedProcess[str]
Pair = tuple[Member, Member]


def cleanup(member: Member, *words: str) -> Done:
    conf = member.folder / "podwired.yaml"
    return member.node.run([member.podwirectl, "cleanup", "--config", conf, *words], check=False)


def tables(member: Member) -> set[str]:
    """nftables tables of the node."""
    listed = json.loads(member.node.run(["nft", "-j", "list", "tables"]).stdout)["nftables"]
    return {item["table"]["name"] for item in listed if "table" in item}


def cluster_members(member: Member) -> list[object]:
    """Addresses of the cluster's pods that nftables knows."""
    listed = json.loads(member.node.run(["nft", "-j", "list", "table", "inet", "podwire"]).stdout)
    sets = [item["set"] for item in listed["nftables"] if "set" in item]
    return [e for s in sets if s["name"].startswith("cluster") for e in s.get("elem", [])]


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "hybrid", "none"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_node_is_as_before(cluster: Cluster, backend: str, end: signal.Signals) -> None:
    member, _other = (cluster.join(start=False, backend=backend) for _ in range(2))
    before = snapshot(member.node.ns)
    member.start()
    eventually(member.is_in_sync)
    assert changes(before, snapshot(member.node.ns))
    member.stop(end)
    done = cleanup(member, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("route 10.244.2.0/24" in done.stdout) == (backend != "none")
    assert (f"removed link {DEVICE}" in done.stdout) == (backend in ("vxlan", "hybrid"))
    assert "removed nftables table inet podwire" in done.stdout
    assert f"removed file {member.conflist}" in done.stdout
    assert changes(before, snapshot(member.node.ns)) == []
    assert not member.conflist.exists()
    recorded = {r["object"] for r in member.history() if r["cause"] == "podwirectl cleanup"}
    forwarding = "sysctl net/ipv4/ip_forward"
    assert recorded >= {f"file {member.conflist}", "nftables table inet podwire", forwarding}
    assert f"set {forwarding} back to 0\n" in done.stdout

    again = cleanup(member, "--yes")
    assert (again.returncode, again.stdout, again.stderr) == (0, "nothing was left\n", "")
    member.start()
    eventually(member.is_in_sync)
    assert member.conflist.exists()


def test_forwarding_is_as_before_the_first_start(cluster: Cluster) -> None:
    """By a daemon that was killed and started anew; what others have set meanwhile stays."""
    member, _other = (cluster.join(start=False) for _ in range(2))
    ns, path = member.node.ns, "/proc/sys/net/ipv6/conf/eth0/forwarding"
    ns.sysctl("ipv6/conf/all/forwarding", "1")
    ns.sysctl("ipv4/conf/eth0/forwarding", "1")  # of one link alone
    before = snapshot(ns)
    for _ in range(2):
        member.start()
        eventually(member.is_in_sync)
        member.stop(signal.SIGKILL)
    assert cleanup(member, "--yes").returncode == 0
    assert changes(before, snapshot(ns)) == []
    member.start()
    eventually(member.is_in_sync)
    member.stop()
    ns.sysctl("ipv6/conf/all/forwarding", "0")
    ns.sysctl("ipv4/conf/eth0/forwarding", "0")
    assert cleanup(member, "--yes").returncode == 0
    assert ns.run(["cat", path]).stdout == "0\n"
    assert ns.run(["cat", path.replace("ipv6", "ipv4")]).stdout == "0\n"


def test_pods_keep_what_they_need(pair: Pair, podwire_bin: Path) -> None:
    one, two = pair
    pods = [one.attach(podwire_bin / "podwire") for _ in range(2)]
    far = two.attach(podwire_bin / "podwire").addresses("eth0")
    conf = json.loads(one.conflist.read_text())
    target = next(a.partition("/")[0] for a in far if "." in a)
    assert pods[0].ping(target)
    one.stop()
    assert cleanup(one, "--yes").returncode == 0
    assert one.routes() == set()
    assert one.node.ns.link(DEVICE) is None
    assert "podwire" in tables(one)
    assert cluster_members(one) == []
    # Between pods of the node nothing has changed, and they still leave as their node.
    near = next(a.partition("/")[0] for a in pods[1].addresses("eth0") if "." in a)
    assert pods[0].ping(near)
    world = one.node.underlay.ns
    server = world.echo("tcp", one.node.underlay.gateway(4))
    assert pods[0].exchange(server) == one.addresses[0]
    # The table goes with the last pod.
    plugin = {**conf["plugins"][0], "name": conf["name"], "cniVersion": conf["cniVersion"]}
    for number in (1, 2):
        answer = one.node.cni(
            "DEL", podwire_bin / "podwire", plugin, container_id=f"c{number}", netns=""
        )
        assert answer.code == 0, answer
    assert tables(one) == set()
    forwarding = ["cat", "/proc/sys/net/ipv4/ip_forward"]
    assert one.node.run(forwarding).stdout == "1\n"
    assert cleanup(one, "--yes").returncode == 0
    assert one.node.run(forwarding).stdout == "0\n"


def test_what_others_have_stays(cluster: Cluster) -> None:
    member, _other = (cluster.join(start=False) for _ in range(2))
    member.conflist.write_text('{"cniVersion": "1.0.0", "name": "by-hand", "plugins": []}')
    ns = member.node.ns
    ns.ip_batch("link add vxlan9 type vxlan id 9 dstport 4789 dev eth0\n")
    ns.sysctl("ipv6/conf/vxlan9/disable_ipv6", "1")  # its link-local address would come late
    ns.ip_batch(
        "link set vxlan9 up\n"
        "address add 172.30.0.1/24 dev vxlan9\n"
        "route add 172.31.0.0/24 via 172.30.0.7 dev vxlan9 proto static\n"
        "route add 172.31.1.0/24 via 172.30.0.7 dev vxlan9 proto 112\n"
    )
    member.node.run(["nft", "add", "table", "inet", "others"])
    ns.sysctl("ipv4/ip_forward", "1")
    ns.sysctl("ipv6/conf/all/forwarding", "1")
    before, file = snapshot(ns), member.conflist.read_text()
    member.start()
    eventually(lambda: "10.244.2.0/24" in member.routes() or member.log)
    member.stop()
    # A route of podwire's that others gave a second next hop is still podwire's.
    ns.ip_batch(
        "route replace 10.244.2.0/24 proto 113 nexthop via 172.30.0.8 nexthop via 172.30.0.9\n"
        "route add unreachable 10.244.9.0/24 proto 113\n"
    )
    done = cleanup(member, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert changes(before, snapshot(ns)) == []
    assert member.conflist.read_text() == file
    assert "removed file" not in done.stdout


def test_a_daemon_that_runs_is_in_the_way(pair: Pair) -> None:
    one, _two = pair
    before = snapshot(one.node.ns)
    done = cleanup(one, "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a daemon runs (it holds" in done.stderr
    assert changes(before, snapshot(one.node.ns)) == []
    assert one.conflist.exists()
    assert one.is_in_sync() is True


def test_a_daemon_that_serves_calls_alone_keeps_its_store(cluster: Cluster) -> None:
    member = cluster.join(start=False)
    conf = member.folder / "podwired.yaml"
    paths = member.folder / "s.sock", member.folder / "d"
    conf.write_text(
        json.dumps({**member.settings, "socket": str(paths[0]), "dataDir": str(paths[1])})
    )
    words: list[str | Path] = ["serve", "--socket", paths[0], "--data-dir", paths[1]]
    with subprocess.Popen([*member.node.enter, member.podwired, *words]) as daemon:
        try:
            eventually(paths[0].exists)
            done = cleanup(member, "--yes", "--data")
            assert (done.returncode, done.stdout) == (1, "")
            assert f"a daemon runs (it answers at {paths[0]}): stop it first" in done.stderr
            assert paths[0].exists()
        finally:
            daemon.terminate()


def test_nothing_goes_unasked(pair: Pair) -> None:
    one, _two = pair
    one.stop()
    before = snapshot(one.node.ns)
    done = cleanup(one)
    assert (done.returncode, done.stdout) == (1, "")
    assert "give --yes to confirm" in done.stderr
    assert changes(before, snapshot(one.node.ns)) == []


def test_thousands_of_routes_are_told_in_few_lines(cluster: Cluster) -> None:
    member = cluster.join(start=False)
    member.folder.joinpath("podwired.yaml").write_text(json.dumps(member.settings))
    ns = member.node.ns
    via = member.node.underlay.gateway(4)
    ns.ip_batch(
        "".join(f"route add 10.{n >> 8}.{n & 255}.0/24 via {via} proto 113\n" for n in range(3000))
    )
    done = cleanup(member, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert member.routes() == set()
    assert "removed route 10.0.0.0/24: via " in done.stdout
    assert "removed 2990 more routes" in done.stdout
    assert len(done.stdout.splitlines()) == 11
    assert len(member.history("route 10.")) == 3000


def test_without_a_configuration_the_default_places_count(cluster: Cluster) -> None:
    member = cluster.join(start=False)
    ns = member.node.ns
    ns.ip_batch("route add blackhole 10.244.2.0/24 proto 113\n")
    done = member.node.run([member.podwirectl, "cleanup", "--yes"], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("removed route 10.244.2.0/24")
    assert member.routes() == set()
