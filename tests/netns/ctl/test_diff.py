"""What differs from the plan, as `podwirectl diff` shows it; nobody repairs meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.netlink.socket import POD_OBJECTS_MAX
from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.pytest_netns import Namespace

pytestmark = pytest.mark.xdist_group("podwirectl diff")

Found = list[tuple[str, str, str]]


def diff(member: Member, *words: str) -> Found:
    """Area, owner and sentence of each difference."""
    return [(each["area"], each["of"], each["text"]) for each in whole(member, *words)]


def whole(member: Member, *words: str) -> list[dict[str, str]]:
    """Each difference with all its keys."""
    argv: list[str | Path] = [member.podwirectl, "diff", *words, "-o", "json"]
    argv += ["--config", member.folder / "podwired.yaml"]
    done = member.node.run(argv, check=False)
    found: list[dict[str, str]] = json.loads(done.stdout)
    assert done.returncode == bool(found or done.stderr), done
    return found


@pytest.fixture(scope="module")
def alone(cluster: Cluster, podwire_bin: Path) -> Iterator[tuple[Member, Namespace]]:
    """A member with a pod, whose daemon has ended."""
    member = cluster.members[0]
    pod = member.attach(podwire_bin / "podwire")
    # More than is read of a pod; it hides no other.
    trap = member.attach(podwire_bin / "podwire")
    numbers = range(POD_OBJECTS_MAX + 1)
    trap.ip_batch("".join(f"route add 11.0.{n >> 8}.{n & 255} dev eth0\n" for n in numbers))
    # A connection that is tracked: the daemon adds rules once there is one.
    member.node.run(["ping", "-c", "1", cluster.members[1].addresses[0]])
    eventually(lambda: "notrack" in member.node.run(["nft", "list", "ruleset"]).stdout)
    eventually(lambda: (found := diff(member)) == [] or found)  # also while the daemon runs
    member.stop()
    yield member, pod
    member.start()
    cluster.settle()


def test_nothing_differs_without_a_daemon(alone: tuple[Member, Namespace]) -> None:
    member, _pod = alone
    argv: list[str | Path] = [member.podwirectl, "diff", "--config"]
    assert member.node.run([*argv, member.folder / "podwired.yaml"]).stdout == "no difference\n"


def test_each_area(alone: tuple[Member, Namespace], cluster: Cluster) -> None:
    member, pod = alone
    two = cluster.members[1]
    links = member.node.ip("link show type veth")
    host = next(k["ifname"] for k in links if " id=c1 " in k.get("ifalias", ""))
    member.node.ns.sysctl("ipv4/ip_forward", "0")
    member.node.ns.sysctl("ipv4/conf/eth0/forwarding", "1")
    member.node.ns.ip_batch(
        f"link set podwire-vxlan mtu 1400\nroute del {two.cidrs[0]}\n"
        f"route replace 10.99.0.0/24 dev lo proto 113\nlink set {host} down\n"
    )
    member.node.run(["nft", "flush", "set", "inet", "podwire", "peers4"])
    member.node.run(["nft", "flush", "chain", "inet", "podwire", "peers_input"], check=False)
    pod.ip_batch("route del default\n")
    text = member.conflist.read_text()
    member.conflist.write_text(text.replace("1450", "1500"))
    found = diff(member)
    member.conflist.write_text(text)
    assert ("settings", "", "net/ipv4/ip_forward is 0, not 1") in found
    assert ("device", "", "link podwire-vxlan has MTU 1400, not 1450") in found
    assert any(f[:2] == ("routes", "node-2") and "is missing" in f[2] for f in found), found
    assert any(f[:2] == ("routes", "") and "10.99.0.0/24" in f[2] for f in found), found
    assert ("filter", two.addresses[0]) in {(f[0], f[2].split()[2]) for f in found}, found
    assert ("attachments", "c1", f"link {host} is down") in found
    assert any(f[0] == "pods" and "route 0.0.0.0/0" in f[2] for f in found), found
    assert ("conflist", str(member.conflist)) in {f[:2] for f in found}
    assert {f[0] for f in diff(member, "--area", "routes")} == {"routes"}


def test_what_is_missing_is_told_from_what_should_not_be(alone: tuple[Member, Namespace]) -> None:
    member, _pod = alone
    member.node.run(["nft", "flush", "set", "inet", "podwire", "cluster4"])
    member.node.run(["nft", "add element inet podwire cluster4 { 172.16.0.0-172.16.0.255 }"])
    found = [f for f in whole(member, "--area", "rules") if "cluster4" in f["name"]]
    states = {(f["desired"], f["observed"]) for f in found}
    assert states == {("present", ""), ("", "present")}, found


def test_a_source_that_cannot_be_read_hides_no_pod(
    alone: tuple[Member, Namespace], cluster: Cluster
) -> None:
    member, _pod = alone
    cluster.file.write_text("{")
    try:
        found = diff(member)
    finally:
        cluster.write()
    assert {area for area, _of, _text in found} <= {"attachments", "pods"}
