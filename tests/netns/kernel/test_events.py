"""Each kind of change is told, with what it was about and who did it."""

import select
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from kernel.model import Address, FdbEntry, Link, Neighbour, Route, Sysctl
from kernel.netlink.codec import NLM_F_REPLACE
from kernel.netlink.monitor import Event, Kind, Monitor, RuleChange
from kernel.routes import change_entries
from tests.netns.kernel.conftest import DEVICE, Side
from tests.netns.kernel.test_vxlan import many

TABLE = """
table inet podwire {
  set s { type ipv4_addr; }
  chain c { ip daddr @s accept; }
}
"""


@pytest.fixture
def events(side: Side) -> Iterator[Monitor]:
    side.ensure()
    with side.ns.call(Monitor) as events:
        link = side.ns.link(DEVICE)
        assert link is not None
        events.ignore(side.nl.port, int(link["ifindex"]))
        yield events


def wait(side: Side, events: Monitor, found: Callable[[Event], bool]) -> Event:
    """The first event of the kind; AssertionError with all that came where none does."""
    seen: list[Event] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([events], [], [], 1)[0]:
            seen += side.ns.call(events.read)
        for event in seen:
            if found(event):
                return event
    raise AssertionError(seen)


def tells(kind: Kind, deleted: bool, noun: object) -> Callable[[Event], bool]:
    """Whether an event says just that."""
    return lambda event: (event.kind, event.deleted, event.noun) == (kind, deleted, noun)


CHANGES: list[tuple[str, str, Kind, bool, object]] = [
    (
        "",
        "route add 10.1.0.0/16 dev eth0 proto 113 metric 7",
        "route",
        False,
        Route(ip_network("10.1.0.0/16"), "eth0", priority=7, protocol=113, scope=253),
    ),
    (
        "route add fd01::/64 via 2001:db8::9",
        "route del fd01::/64",
        "route",
        True,
        Route(ip_network("fd01::/64"), "eth0", via=ip_address("2001:db8::9")),
    ),
    (
        "",
        "route add blackhole 10.1.0.0/16",
        "route",
        False,
        Route(ip_network("10.1.0.0/16"), ""),
    ),
    (
        "",
        f"neigh add 10.2.0.0 lladdr 02:00:00:00:00:09 dev {DEVICE} nud permanent",
        "neighbour",
        False,
        Neighbour(DEVICE, ip_address("10.2.0.0"), "02:00:00:00:00:09"),
    ),
    (
        f"neigh add 10.2.0.0 lladdr 02:00:00:00:00:09 dev {DEVICE} nud permanent",
        f"neigh change 10.2.0.0 lladdr 02:00:00:00:00:09 dev {DEVICE} nud stale",
        "neighbour",
        True,
        Neighbour(DEVICE, ip_address("10.2.0.0"), "02:00:00:00:00:09"),
    ),
    (
        "",
        "address add 10.3.0.1/24 dev eth0",
        "address",
        False,
        Address("eth0", ip_interface("10.3.0.1/24")),
    ),
    (
        "address add fd03::1/64 dev eth0 nodad",
        "address del fd03::1/64 dev eth0",
        "address",
        True,
        Address("eth0", ip_interface("fd03::1/64")),
    ),
]


@pytest.mark.parametrize(("before", "change", "kind", "deleted", "noun"), CHANGES)
def test_a_change_is_told(
    side: Side, before: str, change: str, kind: Kind, deleted: bool, noun: object
) -> None:
    side.ensure()
    side.ns.ip_batch(before + "\n")
    with side.ns.call(Monitor) as events:
        link = side.ns.link(DEVICE)
        events.ignore(side.nl.port, link["ifindex"] if link else 0)
        command = ["nsenter", f"--net={side.ns.path}", "--", "ip", *change.split()]
        with subprocess.Popen(command) as ip:
            pass
        told = wait(side, events, tells(kind, deleted, noun))
    # Changes of IPv6 addresses have no author (net/ipv6/addrconf.c, inet6_ifa_notify).
    assert told.port == (0 if isinstance(noun, Address) and noun.address.version == 6 else ip.pid)


def test_the_fdb(side: Side, events: Monitor) -> None:
    noun = FdbEntry(DEVICE, "02:00:00:00:00:09", ip_address("192.0.2.9"))
    for verb, deleted in (("add", False), ("del", True)):
        side.ns.run(f"bridge fdb {verb} {noun.mac} dst {noun.dst} dev {DEVICE} self".split())
        wait(side, events, tells("fdb", deleted, noun))


def test_a_route_in_anothers_place_is_told_so(side: Side, events: Monitor) -> None:
    side.ns.ip_batch("route add 10.1.0.0/16 dev eth0 proto 113\n")
    side.ns.ip_batch("route replace 10.1.0.0/16 via 192.0.2.9\n")
    told = wait(side, events, lambda e: e.kind == "route" and bool(e.flags & NLM_F_REPLACE))
    assert isinstance(told.noun, Route)
    assert (str(told.noun.via), told.noun.protocol) == ("192.0.2.9", 3)


def test_links(side: Side, events: Monitor) -> None:
    def told(name: str, *, up: bool, deleted: bool = False) -> Callable[[Event], bool]:
        def fits(event: Event) -> bool:
            link = event.noun
            return (
                isinstance(link, Link)
                and (link.name, link.up, event.deleted) == (name, up, deleted)
            )  # fmt: skip

        return fits

    side.ns.ip_batch(f"link set {DEVICE} down\n")
    wait(side, events, told(DEVICE, up=False))
    side.ns.ip_batch(f"link set {DEVICE} name other\nlink set other up\n")
    wait(side, events, told("other", up=True))
    side.ns.ip_batch("address add 10.3.0.1/24 dev other\n")
    noun = Address("other", ip_interface("10.3.0.1/24"))
    wait(side, events, lambda e: e.noun == noun)
    side.ns.ip_batch("link del other\n")
    wait(side, events, told("other", up=False, deleted=True))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ipv4/conf/eth0/forwarding", "1"),
        ("ipv4/conf/all/forwarding", "1"),
        ("ipv4/conf/eth0/rp_filter", "2"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/eth0/forwarding", "1"),
    ],
)
def test_settings_that_the_kernel_announces(
    side: Side, events: Monitor, path: str, value: str
) -> None:
    side.ns.sysctl(path, "0")
    side.ns.call(events.read)
    side.ns.sysctl(path, value)
    wait(side, events, lambda e: (e.kind, e.noun) == ("netconf", Sysctl(f"net/{path}", value)))


def test_nft(side: Side, events: Monitor) -> None:
    side.ns.run(["nft", "-f", "-"], stdin=TABLE)
    wait(side, events, lambda e: e.noun == RuleChange("inet", "podwire", "table", ""))
    changes = {
        "add element inet podwire s { 192.0.2.1 }": ("element", "s", False),
        "delete element inet podwire s { 192.0.2.1 }": ("element", "s", True),
        "flush chain inet podwire c": ("rule", "c", True),
        "delete chain inet podwire c": ("chain", "c", True),
        "flush ruleset": ("table", "", True),
    }
    for command, (what, name, deleted) in changes.items():
        noun = RuleChange("inet", "podwire", what, name)
        with subprocess.Popen(["nsenter", f"--net={side.ns.path}", "nft", command]) as nft:
            pass
        told = wait(side, events, tells("nft", deleted, noun))
        assert told.port == nft.pid


def test_filters_that_links_share_are_about_no_link(side: Side, events: Monitor) -> None:
    """The kernel gives the index -1 to what is in a block."""
    for words in (
        "qdisc add dev eth0 ingress_block 22 ingress",
        "filter add block 22 protocol all u32 match u32 0 0 flowid 1:1",
    ):
        side.ns.run(["tc", *words.split()])
    side.ns.ip_batch("address add 10.3.0.1/24 dev eth0\n")
    wait(side, events, lambda event: event.kind == "address")


def test_own_changes_and_other_links_neighbours_are_not_told(side: Side, events: Monitor) -> None:
    entries = [e for e in many(3000) if not isinstance(e, FdbEntry)]
    assert change_entries(side.nl, entries, []) == []
    side.ns.ip_batch("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent\n")
    side.ns.ip_batch("route add 10.1.0.0/16 dev eth0\n")
    seen: list[Event] = []

    def is_last(event: Event) -> bool:
        seen.append(event)
        return isinstance(event.noun, Route) and str(event.noun.dst) == "10.1.0.0/16"

    wait(side, events, is_last)
    # The kernel's own changes of eth0 and of the device come whenever it gets to them.
    assert [e for e in seen if e.noun in entries or e.kind in ("neighbour", "fdb")] == []


def test_late_news_of_an_earlier_device_is_not_about_the_next(side: Side, events: Monitor) -> None:
    assert change_entries(side.nl, many(200), []) == []
    side.ns.ip_batch(f"link del {DEVICE}\n")
    made = side.ensure().link
    events.ignore(side.nl.port, made.index)
    side.ns.ip_batch(f"neigh add 10.2.0.0 lladdr 02:00:00:00:00:09 dev {DEVICE} nud permanent\n")
    seen: list[Event] = []
    until = time.monotonic() + 60
    while not any(isinstance(e.noun, Neighbour) and e.noun.link for e in seen):
        assert time.monotonic() < until
        seen += side.ns.call(events.read)
    about = [e.noun for e in seen if isinstance(e.noun, Neighbour | FdbEntry)]
    assert {n.link for n in about} == {"", DEVICE}
    assert [n for n in about if n.link == DEVICE] == [
        Neighbour(DEVICE, ip_address("10.2.0.0"), "02:00:00:00:00:09")
    ]


def test_too_many_events_are_told_as_lost(side: Side, events: Monitor) -> None:
    with side.ns.call(lambda: Monitor(1 << 16)) as idle:
        assert change_entries(side.nl, many(500), []) == []
        wait(side, idle, lambda e: e.kind == "lost")
        while select.select([idle], [], [], 0)[0]:
            side.ns.call(idle.read)
        # What comes after the loss is told again.
        side.ns.ip_batch("address add 10.3.0.1/24 dev eth0\n")
        wait(side, idle, lambda e: e.kind == "address")
