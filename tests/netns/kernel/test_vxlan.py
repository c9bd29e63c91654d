"""The VXLAN device and its entries, as the kernel has them."""

import time
from functools import partial
from ipaddress import ip_address, ip_network

import pytest

from kernel.describe import describe
from kernel.diff import key_of
from kernel.errors import KernelError
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route
from kernel.routes import change_entries, read_entries
from kernel.vxlan import Rivalry, remove_vxlan
from tests.netns.kernel.conftest import DEVICE, Side
from tests.netns.routing.conftest import eventually

FIELDS = {"vni": "id", "port": "port", "learning": "learning"}


def told(side: Side) -> dict[str, object]:
    link = side.ns.link(DEVICE)
    assert link is not None
    return {**link, **link["linkinfo"]["info_data"]}


@pytest.mark.parametrize("version", [4, 6])
def test_two_ends_reach_each_other(pair: tuple[Side, Side], version: int) -> None:
    for side, other in (pair, pair[::-1]):
        assert side.ensure(version).made
        assert change_entries(side.nl, side.entries_for(other, version), []) == []
    # A packet is dropped until linkwatch has made the device's IPv6 ready, up to a second later.
    for address in ("10.244.2.0", "fd00:10:244:2::"):
        eventually(partial(pair[0].ns.ping, address))
    # The largest packet that the wire takes: 1,500 bytes less the headers.
    assert pair[0].ns.ping("10.244.2.0", size=1400, fragment=False)


def test_the_device_is_as_ip_tells(side: Side) -> None:
    link = side.ensure().link
    seen = told(side)
    assert (seen["id"], seen["port"], seen["local"], seen["link"]) == (7, 8472, "192.0.2.1", "eth0")
    assert seen["learning"] is False
    assert (seen["mtu"], seen["address"], seen["ifalias"]) == (1400, side.mac, "podwire")
    assert seen["ifindex"] == link.index
    assert side.ns.addresses(DEVICE) == {"10.244.1.0/32", "fd00:10:244:1::/128"}
    again = side.ensure()
    assert (again.changes, again.made) == ((), False)


@pytest.mark.parametrize(
    ("damage", "fault", "made"),
    [
        (f"link set {DEVICE} down", "is down", False),
        (f"link set {DEVICE} mtu 1300", "has MTU 1300, not 1400", False),
        (f"link set {DEVICE} address 02:00:00:00:00:99", "has MAC 02:00:00:00:00:99", False),
        (f"link set {DEVICE} alias x", "has alias x, not podwire", False),
        (
            f"address del 10.244.1.0/32 dev {DEVICE}",
            f"address 10.244.1.0/32 is missing on {DEVICE}",
            False,
        ),
        (
            f"address add 10.9.9.9/24 dev {DEVICE}",
            f"address 10.9.9.9/24 dev {DEVICE} should not be there",
            False,
        ),
        (f"link set {DEVICE} arp off", "resolves no neighbours", False),
        (
            f"link add br9 type bridge\nlink set {DEVICE} master br9",
            "has master br9, and should have none",
            False,
        ),
        (f"link del {DEVICE}", "is missing", True),
        (f"link set {DEVICE} type vxlan id 7 learning", "has learning on, not off", True),
        (
            f"link del {DEVICE}\nlink add {DEVICE} type vxlan id 8 dstport 8472 dev eth0",
            "is bound to no local address",
            True,
        ),
        (
            f"link del {DEVICE}\n"
            f"link add {DEVICE} type vxlan id 8 dstport 99 local 192.0.2.1 dev eth0 nolearning",
            "has VNI 8, not 7 and has port 99, not 8472",
            True,
        ),
        (
            f"link del {DEVICE}\n"
            f"link add {DEVICE} type vxlan id 7 dstport 8472 local 192.0.2.1 dev eth0 nolearning"
            " udpcsum",
            "has UDP checksums on, not off",
            True,
        ),
    ],
)
def test_damage_is_named_and_mended(side: Side, damage: str, fault: str, made: bool) -> None:
    side.ensure()
    before = told(side)
    side.ns.ip_batch(damage + "\n")
    done = side.ensure()
    assert fault in "; ".join(map(describe, done.changes))
    assert done.made == made
    changing = ("ifindex", "flags", "stats", "stats64")
    after = told(side)
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert side.ns.addresses(DEVICE) == {"10.244.1.0/32", "fd00:10:244:1::/128"}


def test_another_kind_of_link_is_left_alone(side: Side) -> None:
    side.ns.ip_batch(f"link add {DEVICE} type bridge\n")
    with pytest.raises(KernelError, match="a bridge has that name"):
        side.ensure()
    assert remove_vxlan(side.nl, DEVICE) is False
    assert side.ns.link(DEVICE) is not None


def test_a_rival_is_named(side: Side) -> None:
    side.ns.ip_batch("link add flannel.1 type vxlan id 7 dstport 8472\n")
    with pytest.raises(Rivalry, match=r"flannel\.1 has VNI 7 and port 8472 already"):
        side.ensure()


def test_removal_is_repeatable(side: Side) -> None:
    side.ensure()
    assert remove_vxlan(side.nl, DEVICE) is True
    assert remove_vxlan(side.nl, DEVICE) is False
    assert side.ns.link(DEVICE) is None


def test_no_uplink_is_an_error(side: Side) -> None:
    side.ns.ip_batch("link del eth0\n")
    with pytest.raises(KernelError, match="ENODEV"):
        side.ensure()


def test_entries_are_as_ip_tells(pair: tuple[Side, Side]) -> None:
    one, two = pair
    one.ensure()
    wanted = one.entries_for(two)
    assert change_entries(one.nl, wanted, []) == []
    assert read_entries(one.nl, DEVICE) == {key_of(e): e for e in wanted}
    [route] = one.ns.ip("route show proto 113")
    assert (route["dst"], route["gateway"], route["dev"]) == ("10.244.2.0/24", "10.244.2.0", DEVICE)
    assert "onlink" in route["flags"]
    [neighbour] = one.ns.ip(f"neigh show 10.244.2.0 dev {DEVICE}")
    assert (neighbour["lladdr"], neighbour["state"]) == (two.mac, ["PERMANENT"])
    assert f"{two.mac} dst 192.0.2.2 self permanent" in fdb(one)


def fdb(side: Side) -> str:
    return side.ns.run(["bridge", "fdb", "show", "dev", DEVICE]).stdout


def test_only_what_is_ours_is_replaced_or_removed(side: Side) -> None:
    side.ensure()
    theirs = "route add 10.244.9.0/24 via 192.0.2.77\nroute add fd00:9::/64 via 2001:db8::77\n"
    side.ns.ip_batch(theirs)
    ours = [
        Route(ip_network(dst), DEVICE, protocol=RTPROT_PODWIRE_PEERS)
        for dst in ("10.244.9.0/24", "fd00:9::/64")
    ]
    refused = change_entries(side.nl, ours, [])
    assert [(f.entry, f.errno) for f in refused] == [(route, 17) for route in ours]
    assert change_entries(side.nl, [], ours) == []
    assert [r["gateway"] for r in side.ns.ip("route show 10.244.9.0/24")] == ["192.0.2.77"]
    assert [r["gateway"] for r in side.ns.ip("-6 route show fd00:9::/64")] == ["2001:db8::77"]
    assert read_entries(side.nl, DEVICE) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "route replace 10.244.2.0/24 via 192.0.2.9 proto 113",
        "route replace blackhole 10.244.2.0/24 proto 113",
        "route replace 10.244.2.0/24 proto 113 nexthop via 192.0.2.8 nexthop via 192.0.2.9",
        "route replace fd00:10:244:2::/64 via 2001:db8::9 proto 113",
        "route append fd00:10:244:2::/64 via 2001:db8::9 proto 113",
        "route replace blackhole fd00:10:244:2::/64 proto 113",
        f"neigh replace 10.244.2.0 lladdr 02:00:00:00:00:99 dev {DEVICE} nud permanent",
        f"neigh replace fe80::2 lladdr 02:00:00:00:00:99 dev {DEVICE} nud permanent",
        f"neigh replace 10.244.2.0 lladdr 02:00:00:00:00:02 dev {DEVICE} nud stale",
        "bridge fdb replace 02:00:00:00:00:02 dst 192.0.2.9",
    ],
)
def test_altered_entries_are_seen_and_replaced(pair: tuple[Side, Side], damage: str) -> None:
    side, other = pair
    side.ensure()
    want = {key_of(e): e for e in side.entries_for(other)}
    change_entries(side.nl, list(want.values()), [])
    if damage.startswith("bridge"):
        side.ns.run([*damage.split(), "dev", DEVICE, "self", "permanent"])
    else:
        side.ns.ip_batch(damage + "\n")
    have = read_entries(side.nl, DEVICE)
    wrong = [key for key, entry in want.items() if have.get(key) != entry]
    assert len(wrong) == 1
    stale = [have[key] for key in wrong if key in have]
    assert change_entries(side.nl, [want[key] for key in wrong], stale) == []
    assert read_entries(side.nl, DEVICE) == want


def test_strays_of_every_shape_go(side: Side) -> None:
    side.ensure()
    side.ns.ip_batch(
        "route add blackhole 10.244.5.0/24 proto 113\n"
        "route add 10.244.6.0/24 proto 113 nexthop via 192.0.2.8 nexthop via 192.0.2.9\n"
        "route add 10.244.7.0/24 via 192.0.2.8 proto 113 metric 5 table 77\n"
        "route add blackhole fd00:5::/64 proto 113\n"
        "route add fd00:6::/64 via 2001:db8::9 proto 113\n"
        f"neigh add 10.244.5.0 lladdr 02:00:00:00:00:77 dev {DEVICE} nud permanent\n"
    )
    side.ns.run(f"bridge fdb add 02:00:00:00:00:77 dst 192.0.2.7 dev {DEVICE} self".split())
    strays = read_entries(side.nl, DEVICE)
    assert len(strays) == 7
    assert change_entries(side.nl, [], list(strays.values())) == []
    assert read_entries(side.nl, DEVICE) == {}


def test_what_is_gone_with_the_device_is_no_failure(pair: tuple[Side, Side]) -> None:
    side, other = pair
    side.ensure()
    entries = side.entries_for(other)
    change_entries(side.nl, entries, [])
    remove_vxlan(side.nl, DEVICE)
    assert change_entries(side.nl, [], entries) == []
    refused = change_entries(side.nl, entries, [])
    assert {f.errno for f in refused} == {19}
    assert len(refused) == len(entries)


def many(count: int) -> list[Entry]:
    """Entries for many peers: one FDB entry, one neighbour and one route for each."""
    entries: list[Entry] = []
    for n in range(count):
        mac = f"02:01:00:00:{n >> 8:02x}:{n & 255:02x}"
        prefix = ip_network((0x0A800000 + (n << 8), 24))
        via = prefix.network_address
        entries.append(FdbEntry(DEVICE, mac, ip_address(0xC6120000 + n)))
        entries.append(Neighbour(DEVICE, via, mac))
        entries.append(Route(prefix, DEVICE, via=via, protocol=RTPROT_PODWIRE_PEERS, onlink=True))
    return entries


def test_five_thousand_peers_come_and_go(side: Side) -> None:
    side.ensure()
    entries = many(5000)
    begin = time.perf_counter()
    assert change_entries(side.nl, entries, []) == []
    added = time.perf_counter()
    assert read_entries(side.nl, DEVICE) == {key_of(e): e for e in entries}
    read = time.perf_counter()
    # Adding again what is there: routes alone are refused, and every refusal is told.
    refused = change_entries(side.nl, entries, [])
    assert [f.entry for f in refused] == [e for e in entries if isinstance(e, Route)]
    assert change_entries(side.nl, entries, entries) == []
    begin_removal = time.perf_counter()
    assert change_entries(side.nl, [], entries) == []
    print(f"added {added - begin:.2f} s, read {read - added:.2f} s, ", end="")
    print(f"removed {time.perf_counter() - begin_removal:.2f} s")
    assert read_entries(side.nl, DEVICE) == {}


def test_a_deleted_device_comes_back_with_all_entries(side: Side) -> None:
    side.ensure()
    entries = many(500)
    change_entries(side.nl, entries, [])
    side.ns.ip_batch(f"link del {DEVICE}\n")
    assert read_entries(side.nl, DEVICE) == {}
    assert side.ensure().made
    assert change_entries(side.nl, entries, []) == []
    assert read_entries(side.nl, DEVICE) == {key_of(e): e for e in entries}
