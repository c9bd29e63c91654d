"""Settings that packets need: set, read back, watched; a fault while they cannot be set."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from pathlib import Path

from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually

READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"


def run(member: Member, command: str) -> None:
    member.node.run(["sh", "-c", command])


def test_a_setting_that_cannot_be_set_is_a_fault_until_it_can(
    cluster: Cluster, podwire_bin: Path
) -> None:
    one = cluster.join(metrics={"listen": "127.0.0.1:9473"})
    eventually(one.conflist.exists)
    run(one, READ_ONLY)
    one.node.ns.sysctl("ipv4/ip_forward", "0")
    told = "could not set sysctl net.ipv4.ip_forward=1: Read-only file system (EROFS) - it is 0"
    eventually(lambda: told in one.status()["fault"] or one.log)
    status = one.status()
    assert status["inSync"] is False
    assert f"the node is not ready: {told}" in status["troubles"][0]
    assert fetch(one, "/readyz").startswith("this node is not ready: could not set sysctl")
    metrics = fetch(one, "/metrics")
    assert "podwire_ready 0.0" in metrics
    assert 'podwire_fault{part="node"} 1.0' in metrics
    answer = one.node.cni("STATUS", podwire_bin / "podwire", {**one.conf(), "cniVersion": "1.1.0"})
    assert (answer.json["code"], told in answer.json["msg"]) == (50, True)
    assert not [r for r in one.history("sysctl net/ipv4/ip_forward") if r["action"] == "restored"]
    run(one, "mount -o remount,bind,rw /proc/sys")
    eventually(one.is_in_sync)
    assert one.node.ns.sysctl("ipv4/ip_forward") == "1"
    [*_, last] = one.history("sysctl net/ipv4/ip_forward")
    assert (last["action"], last["before"], last["after"]) == ("restored", "0", "1")
    assert fetch(one, "/readyz") == "ready\n"


def test_arp_that_is_turned_off_for_all_links_is_a_fault(cluster: Cluster) -> None:
    one = cluster.join()
    eventually(one.is_in_sync)
    one.node.ns.sysctl("ipv4/conf/all/arp_ignore", "2")
    text = "net.ipv4.conf.all.arp_ignore=2 overrules what pods' links have"
    eventually(lambda: text in one.status()["fault"] or one.log)
    one.node.ns.sysctl("ipv4/conf/all/arp_ignore", "0")
    eventually(one.is_in_sync)


def fetch(member: Member, path: str) -> str:
    """What the daemon's endpoint answers on its own node."""
    code = (
        "import sys, urllib.request as u, urllib.error as e\n"
        "try: print(u.urlopen(sys.argv[1]).read().decode(), end='')\n"
        "except e.HTTPError as error: print(error.read().decode(), end='')"
    )
    return member.node.run(["python3", "-Ic", code, f"http://127.0.0.1:9473{path}"]).stdout


def test_a_setting_that_packets_do_not_need_is_no_fault_and_not_reported_as_restored(
    cluster: Cluster,
) -> None:
    one = cluster.join()
    eventually(one.conflist.exists)
    eventually(one.is_in_sync)
    run(one, READ_ONLY)
    setting = "ipv6/conf/podwire-vxlan/accept_ra"
    one.node.ns.sysctl(setting, "1")
    told = f"sysctl net/{setting} cannot be set to 0"
    eventually(lambda: told in one.log or one.log)
    one.node.run(["ip", "link", "set", "podwire-vxlan", "mtu", "1300"])  # another iteration
    eventually(lambda: len(one.history("link podwire-vxlan")) > 1)
    eventually(one.is_in_sync)
    assert one.log.count(told) == 1
    assert [r["action"] for r in one.history(f"sysctl net/{setting}")] == []


def ping_pods(one: Member, two: Member, podwire: Path, versions: tuple[int, ...] = (4, 6)) -> None:
    """A pod of each node reaches the other one, in these families."""
    pods = [member.attach(podwire) for member in (one, two)]
    for address in pods[1].addresses("eth0"):
        if ip_interface(address).version in versions and not ip_interface(address).is_link_local:
            assert pods[0].ping(str(ip_interface(address).ip)), (address, one.log)


def test_settings_that_links_inherit_do_not_cut_off_pods(
    cluster: Cluster, podwire_bin: Path
) -> None:
    """Rules for hardened hosts turn off, for all links that come, what pods' packets need."""
    one, two = cluster.join(start=False), cluster.join(start=False)
    for setting, value in HARDENED.items():
        one.node.ns.sysctl(setting, value)
    for member in (one, two):
        member.start()
    cluster.settle()
    ping_pods(one, two, podwire_bin / "podwire")


HARDENED = {
    "ipv4/ip_forward": "1",  # which also sets what follows
    "ipv4/conf/default/forwarding": "0",
    "ipv4/conf/default/rp_filter": "1",
    "ipv4/conf/default/arp_ignore": "2",
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/forwarding": "0",
}


def test_ipv6_that_is_turned_off_on_the_device_comes_back(pair: tuple[Member, Member]) -> None:
    one, _two = pair
    one.node.ns.sysctl(f"ipv6/conf/{DEVICE}/disable_ipv6", "1")
    eventually(lambda: len(one.history("disable_ipv6")) > 0 or one.log)
    eventually(one.is_in_sync)
    assert one.node.ns.ping("fd00:10:244:2::")


def test_ipv6_that_cannot_be_turned_on_leaves_ipv4_alone(cluster: Cluster) -> None:
    one, _two = cluster.join(start=False), cluster.join()
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        one.node.ns.sysctl(setting, "1")
    one.node.ns.sysctl("ipv6/conf/default/disable_ipv6", "1")
    run(one, READ_ONLY)
    one.start()
    told = f"could not set sysctl net.ipv6.conf.{DEVICE}.disable_ipv6=0: Read-only file system"
    eventually(lambda: told in one.status().get("fault", "") or one.log)
    eventually(lambda: one.has_route("10.244.2.0/24"))
    assert one.node.ns.ping("10.244.2.0")
    run(one, "mount -o remount,bind,rw /proc/sys")
    cluster.settle()
    assert one.node.ns.ping("fd00:10:244:2::")


def test_a_smaller_mtu_costs_ipv6_alone_until_it_grows(cluster: Cluster, podwire_bin: Path) -> None:
    one, two = cluster.join(), cluster.join()
    cluster.settle()
    one.node.run(["ip", "link", "set", "eth0", "mtu", "1280"])
    [refused] = settled_refusals(one, 1)
    assert refused["prefix"] == "fd00:10:244:1::/64"
    assert refused["why"] == (
        "IPv6 pods need an MTU of 1280 (RFC 8200), and have 1230: eth0 has 1280"
    )
    assert one.status()["fault"] == ""
    assert one.node.ns.ping("10.244.2.0")
    plugin = json.loads(one.conflist.read_text())["plugins"][0]
    assert len(plugin["ipam"]["ranges"]) == 1
    ping_pods(one, two, podwire_bin / "podwire", (4,))
    one.node.run(["ip", "link", "set", "eth0", "mtu", "1500"])
    settled_refusals(one, 0)
    cluster.settle()
    assert one.node.ns.ping("fd00:10:244:2::")


def settled_refusals(member: Member, number: int) -> list[dict[str, str]]:
    eventually(lambda: len(member.status()["refused"]) == number or member.log)
    eventually(lambda: member.status()["entriesInSync"] == member.status()["wanted"])
    return list(member.status()["refused"])
