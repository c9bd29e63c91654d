"""What others put in the way stays theirs, and is told: status, log and journal name it."""

from pathlib import Path

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually

Pair = tuple[Member, Member]

IN_THE_WAY = {
    "part of a peer's prefix": ("route add 10.244.2.0/25 via 192.0.2.1", "10.244.2.0/25 on eth0"),
    "before the route of a peer": (
        "route prepend 10.244.2.0/24 via 192.0.2.1",
        "10.244.2.0/24 on eth0",
    ),
    "black hole": ("route add blackhole 10.244.2.0/25", "10.244.2.0/25 through no link"),
    "IPv6 black hole": (
        "-6 route add blackhole fd00:10:244:2::/80",
        "fd00:10:244:2::/80 through no link",
    ),
}


def named(member: Member, rival: str) -> list[str]:
    """The troubles of the node that name a route."""
    return [text for text in member.status()["troubles"] if rival in text]


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_a_foreign_route_in_the_way_is_told_and_left(pair: Pair, name: str) -> None:
    one, _two = pair
    command, rival = IN_THE_WAY[name]
    show = command.replace("add", "show").replace("prepend", "show").split(" via ")[0]
    show = show.replace("blackhole ", "")
    routes = one.routes()
    one.node.run(["ip", *command.split()])
    there = one.node.run(["ip", *show.split()]).stdout
    # Probes, too, may report by then that they do not get through.
    eventually(lambda: named(one, rival) != [] or one.log)
    status = one.status()
    assert status["inSync"] is False
    [trouble] = [text for text in status["troubles"] if rival in text]
    assert "of node-2" in trouble
    eventually(lambda: len([r for r in one.history("node-2") if rival in r["cause"]]) == 1)
    [record] = [r for r in one.history("node-2") if rival in r["cause"]]
    assert record["action"] == "found"
    assert one.log.count(rival) == 1
    assert one.node.run(["ip", *show.split()]).stdout == there  # it is not podwire's
    assert one.routes() == routes
    undo = command.replace("add", "del").replace("prepend", "del")
    one.node.run(["ip", *undo.split()])
    eventually(one.is_in_sync)


def test_a_black_hole_around_prefixes_is_in_nobodys_way(pair: Pair) -> None:
    one, _two = pair
    one.node.run(["ip", "route", "add", "blackhole", "10.0.0.0/8"])
    one.node.run(["ip", "route", "add", "blackhole", "10.244.2.128/32"])
    eventually(lambda: "10.244.2.128/32" in one.log)
    eventually(lambda: named(one, "10.244.2.128/32") != [])
    assert named(one, "10.0.0.0/8") == []
    assert "10.0.0.0/8" not in one.log
    assert one.node.ns.ping("10.244.2.0")


def test_a_wider_route_of_others_is_in_nobodys_way(pair: Pair) -> None:
    one, two = pair
    one.node.run(["ip", "route", "add", "10.0.0.0/8", "via", two.addresses[0]])
    one.node.run(["ip", "route", "add", "10.244.0.0/16", "via", two.addresses[0]])
    one.node.run(["ip", "route", "add", "10.244.2.128/25", "via", two.addresses[0]])
    eventually(lambda: "10.244.2.128/25" in one.log)
    assert "10.0.0.0/8" not in one.log
    assert "10.244.0.0/16" not in one.log
    assert one.node.ns.ping("10.244.2.0")


def test_an_overlap_is_allowed_without_a_restart(cluster: Cluster) -> None:
    one = cluster.prepare()
    cluster.prepare()
    one.node.run(["ip", "route", "add", "10.244.2.0/24", "via", one.addresses[0], "metric", "9"])
    cluster.write()
    one.start()
    eventually(lambda: "which `allowOverlap` does not name" in one.log or one.log)
    process = one.process
    one.write_settings(allowOverlap=["10.244.2.0/24"])
    eventually(lambda: one.has_route("10.244.2.0/24"))
    eventually(one.is_in_sync)
    one.write_settings(allowOverlap=[])
    eventually(lambda: "which `allowOverlap` does not name" in str(one.status()) or one.log)
    assert one.process is process


def test_a_policy_rule_that_takes_packets_of_pods_is_named(pair: Pair, podwire_bin: Path) -> None:
    one, _two = pair
    one.attach(podwire_bin / "podwire")
    one.node.ns.ip_batch(
        "link add tun0 type bridge\nlink set tun0 up\n"
        "route add 10.244.2.0/24 dev tun0 table 52\nrule add pref 5270 lookup 52\n"
    )
    text = "packets of pods to 10.244.2.0/24 of node-2 go dev tun0 by rule 5270: from all lookup 52"
    eventually(lambda: text in one.fault("paths") or one.log)
    status = one.status()
    assert (status["inSync"], status["fault"]) == (False, "")
    one.node.run(["ip", "route", "flush", "table", "52"])
    eventually(one.is_in_sync)
    # By the link of a pod alone: what the node sends itself goes as planned.
    iif = next(k["ifname"] for k in one.node.ip("link show") if k["ifname"].startswith("pw"))
    one.node.run(["ip", "-6", "rule", "add", "pref", "9", "iif", iif, "prohibit"])
    eventually(lambda: f"by rule 9: from all iif {iif} prohibit" in one.fault("paths") or one.log)
    assert "nowhere (Permission denied)" in one.fault("paths")
    one.node.run(["ip", "-6", "rule", "del", "pref", "9"])
    eventually(one.is_in_sync)
    causes = [r["cause"] for r in one.history("packets of pods")]
    assert len(causes) == 4, causes
    assert [c == "they go as planned again" for c in causes] == [False, True] * 2


def test_a_next_hop_that_is_merged_into_an_ipv6_route_goes(pair: Pair) -> None:
    one, two = pair
    other = two.addresses[1]
    one.node.run(["ip", "-6", "route", "append", "fd00:10:244:2::/64", "via", other])
    eventually(lambda: one.history("route fd00:10:244:2::/64") != [])
    eventually(
        lambda: (
            "via fe80" in one.node.run(["ip", "-6", "route", "show", "fd00:10:244:2::/64"]).stdout
        )
    )
    assert other not in one.node.run(["ip", "-6", "route", "show", "fd00:10:244:2::/64"]).stdout
    eventually(one.is_in_sync)
