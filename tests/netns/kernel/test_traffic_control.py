"""Limits are made, compared and repaired, whatever stands in their place."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from kernel.diff import diff_space
from kernel.errors import KernelError
from kernel.model import Link, Redirect, Space, TokenBucket
from kernel.netlink.socket import Netlink
from kernel.read import read_link, read_space
from kernel.repair import repair
from kernel.traffic_control import add_limits, apply_limits, lift_limits
from tests.netns.bandwidth.limits import qdiscs, redirections
from tests.pytest_netns import Namespace
from tests.pytest_netns.plugin import MakeNamespace

HOST = Link("pw0", mtu=1500)
IFB = Link("bwp0", "ifb", "02:00:00:00:00:01", 1500, alias="mark")
# More than 2**32 bytes a second need an attribute of their own.
DESIRED = Space(
    (HOST, IFB),
    buckets=(TokenBucket("pw0", 10**6, 1562500, 125000), TokenBucket("bwp0", 5 * 10**9, 1000, 10)),
    redirects=(Redirect("pw0", "bwp0"),),
)
SHARE = replace(DESIRED, links=(IFB,))


@pytest.fixture
def ns(netns: MakeNamespace) -> Namespace:
    """A namespace with a pair."""
    made = netns("limits")
    made.ip_batch("link add pw0 type veth peer name eth0\nlink set eth0 up\nlink set lo up")
    return made


def differences(ns: Namespace, desired: Space = DESIRED) -> list[object]:
    def read() -> list[object]:
        with Netlink() as nl:
            return [change.noun for change in diff_space(desired, read_space(nl, desired))]

    return ns.call(read)


def make(ns: Namespace) -> None:
    def work() -> None:
        with Netlink() as nl:
            link = read_link(nl, "pw0")
            assert link
            apply_limits(nl, DESIRED, link.index)

    ns.call(work)
    ns.ip_batch("link set bwp0 up\nlink set pw0 up")


def mend(ns: Namespace) -> None:
    def work() -> None:
        with Netlink() as nl:
            link = read_link(nl, "pw0")
            assert link
            repair(nl, diff_space(DESIRED, read_space(nl, DESIRED)), link.index)

    ns.call(work)


IN_ITS_PLACE = {
    "another kind of root": "tc qdisc del dev pw0 root; tc qdisc add dev pw0 root handle 1: prio; "
    "tc qdisc add dev pw0 root handle 1: bfifo",
    "a bucket with another handle": "tc qdisc replace dev pw0 root handle 7: "
    "tbf rate 1mbit burst 5k latency 1ms",
    "another place of filters": "tc qdisc del dev pw0 ingress; tc qdisc add dev pw0 clsact",
    "redirected elsewhere": "tc filter del dev pw0 ingress; tc filter add dev pw0 ingress prio 1 "
    "protocol all u32 match u32 0 0 action mirred egress redirect dev lo",
    "some packets alone": "tc filter del dev pw0 ingress; tc filter add dev pw0 ingress prio 1 "
    "protocol all u32 match u32 1 1 action mirred egress redirect dev bwp0",
    "another device": "ip link del bwp0; ip link add bwp0 type ifb",
    "everything": "ip link del bwp0; tc qdisc del dev pw0 root; tc qdisc del dev pw0 ingress",
}


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_repair(ns: Namespace, what: str) -> None:
    make(ns)
    assert differences(ns) == []
    ns.run(["sh", "-c", IN_ITS_PLACE[what]])
    assert differences(ns)
    mend(ns)
    if what == "another device":
        mend(ns)
    assert differences(ns) == []
    assert redirections(ns, "pw0") == ["bwp0"]


def test_filters_of_others_stay(ns: Namespace) -> None:
    make(ns)
    other = "protocol all u32 match u32 0 0 action mirred egress mirror dev lo"
    ns.run(["sh", "-c", f"tc filter add dev pw0 ingress prio 9 {other}"])
    ns.run(["tc", "filter", "del", "dev", "pw0", "ingress", "prio", "1"])
    mend(ns)
    assert differences(ns) == []
    assert "pref 9 " in ns.run(["tc", "filter", "show", "dev", "pw0", "ingress"]).stdout


def add(ns: Namespace) -> None:
    def work() -> None:
        with Netlink() as nl, ExitStack() as undo:
            add_limits(nl, SHARE, undo)
            undo.pop_all()

    ns.call(work)


def lift(ns: Namespace) -> list[str]:
    def work() -> list[str]:
        with Netlink() as nl:
            return lift_limits(nl, SHARE)

    return ns.call(work)


def test_limits_of_a_link_that_is_there(ns: Namespace) -> None:
    ns.ip_batch("link set pw0 up")
    add(ns)
    assert differences(ns, SHARE) == []
    assert lift(ns) == ["bwp0"]
    assert [q["kind"] for q in qdiscs(ns)["pw0"]] == ["ingress"]
    assert redirections(ns, "pw0") == []


@pytest.mark.parametrize("taken", ["root", "device", "filters"])
def test_what_fails_is_undone(ns: Namespace, taken: str) -> None:
    commands = {
        "root": "tc qdisc add dev pw0 root handle 1: bfifo",
        "device": "ip link add bwp0 type ifb",
        "filters": "tc qdisc add dev pw0 ingress; "
        "tc filter add dev pw0 ingress prio 1 protocol ip u32 match u32 0 0 classid 1:1",
    }
    ns.run(["sh", "-c", commands[taken]])
    before = ns.ip("link show"), qdiscs(ns), redirections(ns, "pw0")
    with pytest.raises(KernelError):
        add(ns)
    assert (ns.ip("link show"), qdiscs(ns), redirections(ns, "pw0")) == before


def test_a_new_link_whose_limit_the_kernel_refuses(ns: Namespace) -> None:
    """The device was made by then."""
    refused = replace(DESIRED, buckets=(TokenBucket("pw0", 10**6, 0, 1), DESIRED.buckets[1]))

    def work() -> None:
        with Netlink() as nl:
            link = read_link(nl, "pw0")
            assert link
            apply_limits(nl, refused, link.index)

    with pytest.raises(KernelError, match="set qdisc tbf of pw0"):
        ns.call(work)
    assert ns.link("bwp0") is None


def test_what_others_changed_is_left(ns: Namespace) -> None:
    """Their bucket, their device with the same name; a redirection to nowhere would drop all."""
    add(ns)
    ns.run(["sh", "-c", "tc qdisc change dev pw0 root handle 1: tbf rate 1mbit burst 5k lat 1ms"])
    ns.ip_batch("link del bwp0\nlink add bwp0 type ifb\nlink set bwp0 alias theirs")
    assert lift(ns) == []
    assert {q["kind"] for q in qdiscs(ns)["pw0"]} == {"tbf", "ingress"}
    assert ns.run(["tc", "filter", "show", "dev", "pw0", "ingress"]).stdout == ""
