"""The `ipam` section: what is accepted, what it means, and what each mistake is told."""

from __future__ import annotations

import contextlib
import json
import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.config import IpamConf, parse_ipam, parse_resolv_conf
from ipam.errors import IpamError
from ipam.json_section import CniRoute, Dns
from ipam.ranges import IPNetwork, Range, build_range, range_of, sets_overlap
from tests.unit.ipam.helpers import ip

DEFAULT = Path("/var/lib/podwire")


def parse(ipam: Any, **more: Any) -> IpamConf:
    return parse_ipam("podnet", ipam, default_data_dir=DEFAULT, **more)


def only_range(ipam: dict[str, object]) -> Range:
    ((range_,),) = parse(ipam).range_sets
    return range_


@pytest.mark.parametrize(
    ("given_keys", "start", "end", "gateway"),
    [
        ({"subnet": "10.1.2.0/24"}, "10.1.2.1", "10.1.2.254", "10.1.2.1"),
        ({"subnet": "10.1.2.0/30"}, "10.1.2.1", "10.1.2.2", "10.1.2.1"),
        ({"subnet": "fd00::/64"}, "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        ({"subnet": "10.1.0.0/16", "rangeStart": "10.1.3.9"}, "10.1.3.9", "10.1.255.254", None),
        ({"subnet": "10.1.0.0/16", "rangeEnd": "10.1.255.255"}, "10.1.0.1", "10.1.255.255", None),
        ({"subnet": "10.1.0.0/16", "rangeStart": "10.1.0.0"}, "10.1.0.0", "10.1.255.254", None),
        ({"subnet": "10.1.2.0/24", "gateway": "10.1.2.9"}, "10.1.2.1", "10.1.2.254", "10.1.2.9"),
        ({"subnet": "fd00::/64", "gateway": "fe80::1"}, "fd00::1", None, "fe80::1"),
        ({"SubNet": "10.1.2.0/24", "GATEWAY": "10.1.2.9"}, "10.1.2.1", None, "10.1.2.9"),
        ({"subnet": "10.1.2.0/24", "gateway": None, "rangeEnd": ""}, "10.1.2.1", None, "10.1.2.1"),
        ({"subnet": "10.1.2.0/24", "gateway": "::ffff:10.1.2.3"}, None, None, "10.1.2.3"),
    ],
)
def test_ranges_are_completed_as_host_local_does(
    given_keys: dict[str, object], start: str | None, end: str | None, gateway: str | None
) -> None:
    got = only_range(given_keys)
    for wanted, value in ((start, got.start), (end, got.end), (gateway, got.gateway)):
        assert wanted is None or value == ip(wanted)


def test_runtime_ranges_come_first_then_top_level_then_ranges() -> None:
    got = parse(
        {"subnet": "10.2.0.0/24", "ranges": [[{"subnet": "10.3.0.0/24"}]]},
        runtime_config={"ipRanges": [[{"subnet": "10.1.0.0/24"}]]},
    )
    assert [str(s[0].subnet) for s in got.range_sets] == [
        "10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24",
    ]  # fmt: skip


def test_top_level_keys_without_subnet_are_ignored_beside_ranges() -> None:
    got = parse({"gateway": "10.9.9.9", "ranges": [[{"subnet": "10.3.0.0/24"}]]})
    assert [str(s[0].gateway) for s in got.range_sets] == ["10.3.0.1"]


def test_everything_else() -> None:
    got = parse(
        {
            "type": "podwire", "unknown": {"a": [1]}, "subnet": "10.2.0.0/24",
            "dataDir": "/run/x", "restPeriod": 1.5, "dns": {"nameservers": ["10.0.0.53"]},
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "10.7.1.9/16", "gw": "10.2.0.7", "mtu": 1400, "advmss": 1300,
                 "priority": 5, "table": 100, "scope": 253},
            ],
        }
    )  # fmt: skip
    assert (got.network, got.data_dir, got.rest) == ("podnet", Path("/run/x"), 1.5)
    assert got.dns is not None
    assert got.dns.nameservers == ("10.0.0.53",)
    assert got.routes == (
        CniRoute(IPv4Network("0.0.0.0/0")),
        CniRoute(IPv4Network("10.7.0.0/16"), ip("10.2.0.7"), 1400, 1300, 5, 100, 253),
    )


def test_defaults() -> None:
    got = parse({"subnet": "10.2.0.0/24"})
    assert (got.data_dir, got.rest, got.dns, got.routes, got.requested) == (
        DEFAULT, 0.0, None, (), (),
    )  # fmt: skip


def test_requested_addresses_of_every_place() -> None:
    got = parse(
        {"ranges": [[{"subnet": f"10.{n}.0.0/16"}] for n in (1, 2, 3)]},
        cni_args={"IP": "10.2.0.5", "K8S_POD_NAME": "x"},
        args={"ips": ["10.1.0.7/8", ""]},
        runtime_config={"ips": ["10.3.0.9/16", "10.2.0.5"]},
    )
    assert got.requested == (ip("10.2.0.5"), ip("10.1.0.7"), ip("10.3.0.9"))


SUBNET = {"subnet": "10.0.0.0/24"}
BAD_IPAM = [
    ({}, "ipam.subnet and ipam.ranges are both missing"),
    ([], "ipam is []"),
    ({"subnet": 5}, "ipam.subnet is 5"),
    ({"subnet": "10.0.0.0"}, "'10.0.0.0' is not in CIDR notation"),
    ({"subnet": "10.0.0.0/255.255.255.0"}, "not in CIDR notation"),
    ({"subnet": "10.0.0.0/²4"}, "not in CIDR notation"),
    ({"subnet": "10.0.0.0/33"}, "10.0.0.0/33"),
    ({"subnet": "10.0.0.0/024000"}, "not in CIDR notation"),
    ({"subnet": "010.0.0.0/24"}, "ipam.subnet: '010.0.0.0'"),
    ({"subnet": "10.0.0.5/24"}, "host bits set; the subnet is 10.0.0.0/24"),
    ({"subnet": "::ffff:10.0.0.0/120"}, "::ffff:10.0.0.0/120"),
    ({"subnet": "fe80::%eth0/64"}, "fe80::%eth0/64"),
    ({"subnet": "10.0.0.0/31"}, "subnet 10.0.0.0/31 is too small"),
    ({"subnet": "fd00::/127"}, "subnet fd00::/127 is too small"),
    ({**SUBNET, "rangeStart": "10.0.1.1"}, "rangeStart 10.0.1.1 is not in subnet 10.0.0.0/24"),
    ({**SUBNET, "rangeEnd": "fd00::1"}, "rangeEnd fd00::1 is not in subnet"),
    ({**SUBNET, "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}, "10.0.0.8 is before"),
    ({**SUBNET, "gateway": "fd00::1"}, "gateway fd00::1 is not of the address family"),
    ({**SUBNET, "gateway": "10.0.0.300"}, "ipam.gateway is '10.0.0.300'"),
    ({**SUBNET, "gateway": ["10.0.0.3"]}, "ipam.gateway is ['10.0.0.3']"),
    ({"ranges": {}}, "ipam.ranges is {}, must be a list"),
    ({"ranges": [{}]}, "ipam.ranges[0] is {}, must be a list of ranges"),
    ({"ranges": [[]]}, "ipam.ranges[0]: the range set is empty"),
    ({"ranges": [[5]]}, "ipam.ranges[0][0] is 5, must be an object"),
    ({"ranges": [[{}]]}, "ipam.ranges[0][0].subnet is None"),
    ({"ranges": [[SUBNET, SUBNET]]}, "10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.254 overlap"),
    ({"ranges": [[SUBNET, {"subnet": "fd00::/64"}]]}, "IPv4 and IPv6 ranges in one range set"),
    ({**SUBNET, "ranges": [[SUBNET]]}, "ipam.subnet (10.0.0.1-10.0.0.254) overlaps with ipam.r"),
    ({**SUBNET, "dataDir": "x/y"}, "ipam.dataDir is 'x/y', must be an absolute path"),
    ({**SUBNET, "dataDir": "/a\0b"}, "ipam.dataDir"),
    ({**SUBNET, "dataDir": 7}, "ipam.dataDir is 7"),
    ({**SUBNET, "restPeriod": -1}, "ipam.restPeriod is -1"),
    ({**SUBNET, "restPeriod": True}, "ipam.restPeriod is True"),
    ({**SUBNET, "restPeriod": float("nan")}, "ipam.restPeriod is nan"),
    ({**SUBNET, "restPeriod": float("inf")}, "ipam.restPeriod is inf"),
    ({**SUBNET, "restPeriod": "5s"}, "ipam.restPeriod is '5s'"),
    ({**SUBNET, "routes": "x"}, "ipam.routes is 'x'"),
    ({**SUBNET, "routes": [{}]}, "ipam.routes[0].dst is None"),
    ({**SUBNET, "routes": [{"dst": "0/0"}]}, "ipam.routes[0].dst"),
    ({**SUBNET, "routes": [{"dst": "10.0.0.0/8", "gw": "::1"}]}, "ipam.routes[0].gw is '::1'"),
    ({**SUBNET, "routes": [{"dst": "10.0.0.0/8", "mtu": 1.5}]}, "ipam.routes[0].mtu is 1.5"),
    ({**SUBNET, "routes": [{"dst": "10.0.0.0/8", "mtu": True}]}, "ipam.routes[0].mtu is True"),
    ({**SUBNET, "routes": [{"dst": "10.0.0.0/8", "scope": 256}]}, "ipam.routes[0].scope is 256"),
    ({**SUBNET, "routes": [{"dst": "10.0.0.0/8", "table": -1}]}, "ipam.routes[0].table is -1"),
    ({**SUBNET, "dns": 5}, "ipam.dns is 5"),
    ({**SUBNET, "dns": {"search": [5]}}, "ipam.dns.search is 5"),
    ({**SUBNET, "gateway": "9" * 10_000}, "..."),
]


@pytest.mark.parametrize(("ipam", "message"), BAD_IPAM)
def test_mistakes_are_named_with_their_value(ipam: object, message: str) -> None:
    with pytest.raises(IpamError) as caught:
        parse(ipam)
    assert caught.value.code == 7
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


BAD_REQUESTS: list[tuple[dict[str, object], int, str]] = [
    ({"cni_args": {"IP": "nonsense"}}, 4, "CNI_ARGS IP is 'nonsense'"),
    ({"cni_args": {"IP": "10.1.0.1"}}, 4, "CNI_ARGS IP: requested address 10.1.0.1 is in none"),
    ({"cni_args": {"IP": "10.0.0.1"}}, 4, "requested address 10.0.0.1 is a gateway"),
    ({"args": {"ips": [5]}}, 7, "args.cni.ips[0] is 5"),
    ({"args": {"ips": "10.0.0.5"}}, 7, "args.cni.ips is '10.0.0.5'"),
    ({"runtime_config": {"ips": ["10.0.0.5/99"]}}, 7, "runtimeConfig.ips[0] is '10.0.0.5/99'"),
    ({"runtime_config": {"ipRanges": 5}}, 7, "runtimeConfig.ipRanges is 5"),
    ({"runtime_config": {"ipRanges": [[SUBNET]]}}, 7, "runtimeConfig.ipRanges[0]"),
    ({"runtime_config": {"ips": ["10.0.0.5", "10.0.0.6"]}}, 7, "same range set as 10.0.0.5"),
    ({"cni_version": "0.2.0"}, 7, "cniVersion 0.2.0"),
]


@pytest.mark.parametrize(("more", "code", "message"), BAD_REQUESTS)
def test_bad_requests(more: dict[str, object], code: int, message: str) -> None:
    ipam = {**SUBNET, "ranges": [[{"subnet": "10.9.0.0/16"}]]}
    with pytest.raises(IpamError) as caught:
        parse(ipam, **more)
    assert (caught.value.code, message in str(caught.value)) == (code, True), str(caught.value)


def test_two_sets_of_one_family_are_fine_from_cni_0_3_on() -> None:
    ipam = {**SUBNET, "ranges": [[{"subnet": "10.9.0.0/16"}]]}
    assert len(parse(ipam, cni_version="0.3.0").range_sets) == 2


def subnets() -> st.SearchStrategy[IPNetwork]:
    v4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 30))
    v6 = st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 126))
    return st.one_of(
        v4.map(lambda pair: IPv4Network(pair, strict=False)),
        v6.map(lambda pair: IPv6Network(pair, strict=False)),
    )


@given(subnets())
def test_default_range_of_any_subnet(subnet: IPNetwork) -> None:
    got = only_range({"subnet": str(subnet)})
    assert got == build_range(subnet)
    assert got.start == subnet.network_address + 1
    last = subnet.broadcast_address
    assert got.end == (last - 1 if isinstance(subnet, IPv4Network) else last)
    assert got.start in got
    assert subnet.network_address not in got


SMALL = IPv4Network("10.0.0.0/28")


def small_ranges() -> st.SearchStrategy[Range]:
    pairs = st.tuples(st.integers(0, 15), st.integers(0, 15)).map(lambda p: tuple(sorted(p)))
    return pairs.map(lambda p: build_range(SMALL, SMALL[p[0]], SMALL[p[1]]))


@given(small_ranges(), small_ranges())
def test_overlap_is_a_common_address(one: Range, other: Range) -> None:
    common = [address for address in SMALL if address in one and address in other]
    assert one.overlaps(other) == bool(common) == sets_overlap((one,), (other,))
    assert one.overlaps(other) == other.overlaps(one)


@given(st.lists(small_ranges(), min_size=1, max_size=4), st.sampled_from(list(SMALL)))
def test_range_of_is_the_first_that_contains(ranges: list[Range], address: Any) -> None:
    found = range_of(tuple(ranges), address)
    assert found == next((r for r in ranges if r.start <= address <= r.end), None)
    assert range_of(tuple(ranges), IPv6Network("::a00:0/128")[0]) is None


TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["10.0.0.0/24", "fd00::/64", "10.0.0.5", "/run/x", "", "fe80::1%eth0"]),
)
KEYS = st.one_of(
    st.sampled_from(
        ["subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "dst", "gw", "mtu",
         "dns", "dataDir", "restPeriod", "ips", "ipRanges", "nameservers"]
    ),
    st.text(max_size=4),
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(KEYS, children, max_size=5)
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON, st.dictionaries(st.just("IP"), TEXT))
def test_any_json_is_parsed_or_refused_with_a_code(
    ipam: Any, runtime: Any, args: Any, cni_args: dict[str, str]
) -> None:
    with contextlib.suppress(IpamError):
        got = parse(ipam, runtime_config=runtime, args=args, cni_args=cni_args)
        ranges = [r for range_set in got.range_sets for r in range_set]
        assert ranges
        assert all(int(r.start) <= int(r.end) for r in ranges)


@pytest.mark.parametrize(
    "value", [10**5000, [[[[[[1]]]]]] * 99, "x" * 10**6], ids=["digits", "nested", "long"]
)
def test_absurd_values_are_quoted_in_short(value: object) -> None:
    with pytest.raises(IpamError, match=r"ipam\.subnet is .{1,90}, must be a string"):
        parse({"subnet": [value]})


@given(subnets(), st.sampled_from([str.upper, str.lower, str.title]))
def test_keys_match_without_regard_to_case(subnet: IPNetwork, change: Any) -> None:
    assert parse({change("subnet"): str(subnet)}) == parse({"subnet": str(subnet)})


def test_the_exact_key_wins_over_another_case() -> None:
    ipam = json.loads('{"SUBNET": "10.1.0.0/24", "subnet": "10.2.0.0/24"}')
    assert str(only_range(ipam).subnet) == "10.2.0.0/24"


def test_absurd_numbers_of_ranges_are_refused() -> None:
    sets = [[{"subnet": f"10.{n // 256}.{n % 256}.0/24"}] for n in range(65)]
    with pytest.raises(IpamError, match="65 range sets are too many"):
        parse_ipam("net", {"ranges": sets}, default_data_dir=Path("/x"))
    one_set = [{"subnet": f"10.{n // 256}.{n % 256}.0/24"} for n in range(257)]
    with pytest.raises(IpamError, match="257 ranges are too many"):
        parse_ipam("net", {"ranges": [one_set]}, default_data_dir=Path("/x"))


RESOLV_CONF = """\
# comment
; another
nameserver 10.0.0.53 trailing
  nameserver\tfd00::53
domain example.net
search a.example.net b.example.net
search c.example.net
options ndots:5 edns0
nameserver
sortlist 10.0.0.0
"""


def test_keywords_add_up() -> None:
    assert parse_resolv_conf(RESOLV_CONF) == Dns(
        nameservers=("10.0.0.53", "fd00::53"),
        domain="example.net",
        search=("a.example.net", "b.example.net", "c.example.net"),
        options=("ndots:5", "edns0"),
    )


def parse_with(resolv_conf: Path) -> Dns | None:
    ipam = {"subnet": "10.0.0.0/24", "resolvConf": str(resolv_conf), "dns": {"domain": "not.me"}}
    return parse_ipam("podnet", ipam, default_data_dir=Path("/x")).dns


def test_the_file_wins_over_the_dns_object(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"domain \xffexample.net\n")
    assert parse_with(path) == Dns(domain="\ufffdexample.net")


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    os.mkfifo(path)
    assert parse_with(path) == Dns()


@pytest.mark.parametrize("kind", ["missing", "folder", "huge"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "resolv.conf"
    if kind == "folder":
        path.mkdir()
    if kind == "huge":
        path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(IpamError) as caught:
        parse_with(path)
    assert caught.value.code == 5
    assert str(path) in str(caught.value)
