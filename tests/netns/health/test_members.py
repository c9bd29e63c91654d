"""Peers join, leave and change; this node changes; routing never waits for the probes."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from functools import partial

import pytest

from tests.netns.health.conftest import (
    FAST,
    PORT,
    Grow,
    expect,
    expect_well,
    health,
    is_well,
)
from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually
from tests.pytest_netns import changes, snapshot

OWN = {"10.244.1.0", "fd00:10:244:1::"}


def own_routes(member: Member) -> set[str]:
    """The addresses that are the node's own by podwire's mark."""
    found = member.node.ip("route show table local proto 113")
    found += member.node.ip("-6 route show table local proto 113")
    return {str(route["dst"]) for route in found}


def sockets(member: Member) -> set[str]:
    """Where the node listens for probes."""
    lines = member.node.run(["ss", "-Hlun", f"sport = :{PORT}"]).stdout.splitlines()
    return {line.split()[3].rsplit(":", 1)[0].strip("[]") for line in lines}


def listens(member: Member, wanted: set[str]) -> object:
    """True where it listens for probes at these addresses, else where it does."""
    return sockets(member) == wanted or (sockets(member), member.log)


def is_calm(member: Member) -> object:
    """True where nothing is wrong: on a busy machine an answer to a probe may come late."""
    return member.status()["troubles"] == [] or (member.status()["troubles"], member.log)


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "hybrid", "none"])
def test_which_addresses_are_probed(grow: Grow, backend: str, outer: str) -> None:
    one, _two = grow(backend=backend, underlay=outer)
    eventually(one.is_in_sync)
    routed = backend != "none"
    pods = OWN if routed else set()
    eventually(partial(listens, one, pods | set(one.addresses)))
    assert own_routes(one) == (OWN if backend == "host-gw" else set())
    eventually(partial(is_calm, one))
    assert one.node.ns.ping("10.244.2.0", seconds=10 if routed else 2) == routed


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_cluster_of_one_family(cluster: Cluster, backend: str, version: int) -> None:
    pair = [cluster.prepare() for _ in range(2)]
    place = version == 6
    cluster.write(
        **{
            f"node_{m.number}": {"addresses": [m.addresses[place]], "podCIDRs": [m.cidrs[place]]}
            for m in pair
        }
    )
    for member in pair:
        member.start(backend=backend, health=FAST)
    expect_well(pair)
    first = pair[0].cidrs[place].partition("/")[0]
    eventually(partial(listens, pair[0], {first, pair[0].addresses[place]}))


def test_peers_come_and_go(cluster: Cluster, grow: Grow) -> None:
    one, two, three = grow(3)
    cluster.write(node_3=None)
    for member in (one, two):
        eventually(partial(is_well, member, 1))
        eventually(partial(is_calm, member))
    cluster.write()
    expect_well([one, two, three])
    # One that is listed and never was there.
    absent = cluster.prepare()
    absent.node.ns.run(["ip", "link", "set", "eth0", "down"])
    cluster.write()
    expect(one, absent, "underlay-down")
    eventually(partial(is_well, one, 2))
    cluster.write(node_4=None)
    eventually(partial(is_calm, one))


def test_a_node_with_other_addresses_and_prefixes(cluster: Cluster, grow: Grow) -> None:
    one, two = grow()
    two.node.ns.ip_batch(
        "address del 192.0.2.12/24 dev eth0\naddress add 192.0.2.77/24 dev eth0\n"
        "route replace default via 192.0.2.1\n"
    )
    cluster.write(
        node_2={"addresses": ["192.0.2.77", two.addresses[1]], "podCIDRs": ["10.244.77.0/24"]}
    )
    eventually(lambda: "10.244.77.0" in sockets(two) or two.log)
    expect_well([one, two])
    eventually(partial(listens, two, {"192.0.2.77", two.addresses[1], "10.244.77.0"}))


def test_another_back_end(cluster: Cluster, grow: Grow) -> None:
    one, two = grow()
    for backend in ("host-gw", "vxlan", "none", "host-gw"):
        for member in (one, two):
            member.stop()
            (member.folder / "log").write_text("")
            member.start(backend=backend)
        for member in (one, two):
            eventually(member.is_in_sync)
        expect_well([one, two])
        assert own_routes(one) == (OWN if backend == "host-gw" else set())
        assert (one.node.ns.link(DEVICE) is not None) == (backend == "vxlan")
        assert "error" not in one.log


def test_the_address_of_host_gw_comes_back(grow: Grow) -> None:
    one, two = grow(backend="host-gw")
    one.node.run(["ip", "route", "del", "local", "10.244.1.0", "table", "local"])
    eventually(lambda: own_routes(one) == OWN or one.log)
    one.node.run(["ip", "link", "set", "lo", "down"])
    one.node.run(["ip", "link", "set", "lo", "up"])
    eventually(lambda: own_routes(one) == OWN or one.log)
    expect_well([one, two])
    restored = [r for r in one.history("10.244.1.0/32") if r["action"] == "restored"]
    assert "removed by pid" in restored[0]["cause"]
    assert "local" in restored[0]["after"]


@pytest.mark.parametrize("wanted", [True, False])
def test_cleanup_leaves_nothing(cluster: Cluster, wanted: bool) -> None:
    one = cluster.join(start=False, backend="host-gw", health=FAST if wanted else False)
    cluster.join(start=False)
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        one.node.ns.sysctl(setting, "1")
    before = snapshot(one.node.ns)
    one.start()
    eventually(one.is_in_sync)
    assert own_routes(one) == (OWN if wanted else set())
    one.stop()
    conf = one.folder / "podwired.yaml"
    one.node.run([one.podwirectl, "cleanup", "--yes", "--config", conf])
    assert own_routes(one) == set()
    assert changes(before, snapshot(one.node.ns)) == []


def test_no_probes_where_they_are_turned_off(cluster: Cluster) -> None:
    one, _two = (cluster.join(health=False) for _ in range(2))
    cluster.settle()
    assert sockets(one) == set()
    assert one.status()["health"] is None
    done = one.node.run([one.podwirectl, "status", "--config", one.folder / "podwired.yaml"])
    assert "peers       1\n" in done.stdout


def test_another_port(cluster: Cluster) -> None:
    pair = [cluster.join(health={**FAST, "port": 9999}) for _ in range(2)]
    expect_well(pair)
    assert sockets(pair[0]) == set()


def test_a_port_in_use(cluster: Cluster) -> None:
    one, two = (cluster.join(start=False) for _ in range(2))
    with closing(one.node.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("0.0.0.0", PORT))  # noqa: S104 - whoever takes a port takes it everywhere
        for member in (one, two):
            member.start(health=FAST)
        eventually(lambda: str(PORT) in json.dumps(health(one)) or one.log)
        [line] = [t for t in one.status()["troubles"] if "not probed" in t]
        assert f"UDP port {PORT} of " in line
        assert "is taken by another process" in line
        assert "health: {port: ...}" in line
        # Routes are kept, and pods may start.
        eventually(one.is_in_sync)
        assert one.conflist.exists()
        assert one.routes() == set(two.cidrs)
        assert one.log.count("is taken by another process") == 1
    expect_well([one, two])
    eventually(partial(is_calm, one))
