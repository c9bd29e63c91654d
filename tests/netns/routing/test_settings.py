"""Settings that packets need: set, read back, watched; a fault while they cannot be set."""

from __future__ import annotations

from pathlib import Path

from tests.netns.routing.conftest import Cluster, Member, eventually

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
