"""A node that podwire made a router goes on taking router advertisements by its uplink."""

import sys

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.netns.routing.test_cleanup import cleanup
from tests.netns.test_router_advertisement import ADVERTISE
from tests.pytest_netns.underlay import BRIDGE

SETTING = "ipv6/conf/eth0/accept_ra"
NO_DEFAULT = ["ip", "-6", "route", "flush", "default"]


def is_heard(member: Member) -> object:
    """True once the node has a default route by an advertisement, else the log."""
    argv = [sys.executable, "-c", ADVERTISE.replace("adv1", BRIDGE)]
    member.node.underlay.ns.run(argv)
    found = member.node.ip("-6 route show default proto ra")
    return [route["dev"] for route in found] == ["eth0"] or member.log


def prepare(cluster: Cluster, forwarding: str) -> Member:
    """A node whose uplink takes advertisements, and has not received any yet."""
    one = cluster.prepare()
    cluster.write()
    one.node.ns.sysctl("ipv6/conf/all/forwarding", forwarding)
    one.node.ns.sysctl(SETTING, "1")
    one.node.run(NO_DEFAULT)
    one.start()
    eventually(one.is_in_sync)
    assert one.node.ns.sysctl("ipv6/conf/all/forwarding") == "1"
    return one


def test_an_advertisement_that_comes_after_podwire_is_taken(cluster: Cluster) -> None:
    """The daemon starts before the network is up."""
    one = prepare(cluster, "0")
    eventually(lambda: is_heard(one))
    # Programs that set the link up again give it the usual value (ifupdown), as a new link has it.
    one.node.ns.sysctl(SETTING, "1")
    one.node.run(NO_DEFAULT)
    eventually(lambda: is_heard(one))
    restored = one.history(f"sysctl net/{SETTING}")[-1]
    assert (restored["action"], restored["before"], restored["after"]) == ("restored", "1", "2")
    one.stop()
    assert cleanup(one, "--yes").returncode == 0
    assert one.node.ns.sysctl(SETTING) == "1"


def test_a_link_that_takes_none_takes_none(cluster: Cluster) -> None:
    """A node that was a router before, or whose network manager reads advertisements itself."""
    one = prepare(cluster, "1")
    assert one.node.ns.sysctl(SETTING) == "1"
    other = prepare(cluster, "0")
    other.node.ns.sysctl(SETTING, "0")
    other.node.ns.sysctl("ipv4/ip_forward", "0")
    eventually(lambda: other.node.ns.sysctl("ipv4/ip_forward") == "1" or other.log)
    assert other.node.ns.sysctl(SETTING) == "0"
