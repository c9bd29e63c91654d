"""The table of configurations. What a case leaves out is the same in all: see `Case.conf`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

V4 = {"subnet": "10.20.0.0/24"}
V6 = {"subnet": "2001:db8:20::/64"}
DEFAULT4 = {"dst": "0.0.0.0/0"}
DEFAULT6 = {"dst": "::/0"}
TO_98 = {"dst": "10.98.0.0/16"}
TO_99 = {"dst": "10.99.0.0/16"}
METRICS = {"mtu": 1300, "advmss": 1200, "priority": 50, "table": 100, "scope": 0}
MAC = "02:11:22:33:44:55"

OLD_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0")
NEW_VERSIONS = ("1.0.0", "1.1.0")


@dataclass(frozen=True)
class Case:
    """One configuration, and how often it is attached."""

    name: str
    plugin: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    ranges: tuple[tuple[Mapping[str, Any], ...], ...] = ((V4,),)
    routes: tuple[Mapping[str, Any], ...] = ()
    ipam: Mapping[str, Any] | None = field(default_factory=dict)
    version: str = "1.0.0"
    args: str = ""
    pods: int = 2
    newest_only: bool = False
    """Whether Debian's release (1.1.1) lacks the keys."""

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the reference releases that have the case's keys."""
        return ("newest",) if self.newest_only else ("debian", "newest")

    def conf(self) -> dict[str, Any]:
        """The network configuration."""
        conf = {"cniVersion": self.version, "name": "net", "type": self.plugin, **self.keys}
        if self.ipam is not None:
            routes = {"routes": list(self.routes)} if self.routes else {}
            ranges = [list(range_set) for range_set in self.ranges]
            conf["ipam"] = {"type": "host-local", "ranges": ranges, **routes, **self.ipam}
        return conf


def bridge(name: str, keys: Mapping[str, Any] | None = None, **options: Any) -> Case:
    return Case(f"bridge-{name}", "bridge", keys or {}, **options)


def ptp(name: str, keys: Mapping[str, Any] | None = None, **options: Any) -> Case:
    return Case(f"ptp-{name}", "ptp", keys or {}, **options)


GATEWAY = {"isGateway": True}
DUAL = ((V4,), (V6,))


def one(*pools: Mapping[str, Any]) -> tuple[tuple[Mapping[str, Any], ...]]:
    """The ranges of a network with one range set."""
    return (pools,)


DNS = {
    "nameservers": ["10.20.0.53"],
    "domain": "pods.example",
    "search": ["pods.example"],
    "options": ["ndots:2"],
}

BRIDGE = (
    # One pod: the reference's CHECK fails by chance once a second one has changed the MAC of a
    # bridge that has no address.
    bridge("plain", pods=1),
    bridge("named", {"bridge": "pods0"}, pods=1),
    bridge("gateway", GATEWAY),
    bridge("default-gateway", {"isDefaultGateway": True}),
    bridge("default-gateway-v6", {"isDefaultGateway": True}, ranges=one(V6)),
    bridge("default-gateway-dual", {"isDefaultGateway": True}, ranges=DUAL),
    bridge(
        "default-route-given",
        {"isDefaultGateway": True},
        routes=({**DEFAULT4, "gw": "10.20.0.9"},),
    ),
    bridge("default-route-with-gateway", GATEWAY, routes=({**DEFAULT4, "gw": "10.20.0.1"},)),
    bridge("v6", GATEWAY, ranges=one(V6), routes=(DEFAULT6,)),
    bridge("dual", GATEWAY, ranges=DUAL, routes=(DEFAULT4, DEFAULT6)),
    bridge(
        "force-address",
        {**GATEWAY, "forceAddress": True},
        ranges=one({"subnet": "10.20.1.0/30"}, V4),
    ),
    bridge("masquerade", {**GATEWAY, "ipMasq": True}, routes=(DEFAULT4,)),
    bridge("masquerade-dual", {**GATEWAY, "ipMasq": True}, ranges=DUAL, routes=(DEFAULT4,)),
    bridge(
        "masquerade-nftables",
        {**GATEWAY, "ipMasq": True, "ipMasqBackend": "nftables"},
        newest_only=True,
    ),
    bridge("mtu", {**GATEWAY, "mtu": 1400}),
    bridge("hairpin", {**GATEWAY, "hairpinMode": True}),
    bridge("promiscuous", {**GATEWAY, "promiscMode": True}),
    bridge("mac-spoof-check", {**GATEWAY, "macspoofchk": True}),
    bridge("port-isolation", {**GATEWAY, "portIsolation": True}, newest_only=True),
    bridge("layer-2", ipam=None),
    bridge(
        "no-container-interface",
        {"disableContainerInterface": True},
        ipam=None,
        newest_only=True,
    ),
    bridge("routes", GATEWAY, routes=(TO_99, {**TO_98, "gw": "10.20.0.77"})),
    bridge(
        "route-metrics",
        GATEWAY,
        routes=({**TO_99, **METRICS},),
        version="1.1.0",
        newest_only=True,
    ),
    bridge("route-priority", GATEWAY, routes=({**TO_99, "priority": 50},), newest_only=True),
    bridge("dns", {**GATEWAY, "dns": DNS}),
    bridge(
        "range", GATEWAY, ranges=one({**V4, "rangeStart": "10.20.0.100", "rangeEnd": "10.20.0.110"})
    ),
    bridge("gateway-address", GATEWAY, ranges=one({**V4, "gateway": "10.20.0.254"})),
    bridge("gateway-v6-address", GATEWAY, ranges=one({**V6, "gateway": "2001:db8:20::ffff"})),
    bridge("subnet-at-top-level", GATEWAY, ranges=(), ipam={**V4, "ranges": []}),
    bridge("mac-capability", {**GATEWAY, "runtimeConfig": {"mac": MAC}}, pods=1),
    bridge("mac-argument", GATEWAY, args=f"IgnoreUnknown=1;MAC={MAC}", pods=1),
    bridge("mac-in-args", {**GATEWAY, "args": {"cni": {"mac": MAC}}}, pods=1),
    bridge("ips-capability", {**GATEWAY, "runtimeConfig": {"ips": ["10.20.0.50/24"]}}, pods=1),
    bridge("ip-argument", GATEWAY, args="IgnoreUnknown=1;IP=10.20.0.51", pods=1),
    bridge("ips-in-args", {**GATEWAY, "args": {"cni": {"ips": ["10.20.0.52"]}}}, pods=1),
    bridge("ip-ranges-capability", {**GATEWAY, "runtimeConfig": {"ipRanges": [[V4]]}}, ranges=()),
    bridge("unknown-keys", {**GATEWAY, "vendor.example/key": {"a": [1]}}),
)

PTP = (
    ptp("plain"),
    ptp("default-route", routes=(DEFAULT4,)),
    ptp("v6", ranges=one(V6), routes=(DEFAULT6,)),
    ptp("dual", ranges=DUAL, routes=(DEFAULT4, DEFAULT6)),
    ptp("masquerade", {"ipMasq": True}, routes=(DEFAULT4,)),
    ptp("mtu", {"mtu": 1400}, routes=(DEFAULT4,)),
    ptp("routes", routes=(TO_99, {**TO_98, "gw": "10.20.0.1"})),
    ptp("dns", {"dns": DNS}),
    ptp("range", ranges=one({**V4, "rangeStart": "10.20.0.100"})),
    ptp("two-subnets-in-a-set", ranges=one({"subnet": "10.20.1.0/30"}, V4)),
    ptp("gateway-address", ranges=one({**V4, "gateway": "10.20.0.254"}), routes=(DEFAULT4,)),
    ptp("ips-capability", {"runtimeConfig": {"ips": ["10.20.0.50/24"]}}, pods=1),
    ptp("ip-argument", args="IgnoreUnknown=1;IP=10.20.0.51", pods=1),
)

VERSIONS = tuple(
    make(
        f"version-{version}",
        keys,
        version=version,
        ranges=DUAL,
        routes=(DEFAULT4, DEFAULT6),
        pods=1,
        newest_only=version == "1.1.0",
    )
    for make, keys in ((bridge, {**GATEWAY, "dns": DNS}), (ptp, {"dns": DNS}))
    for version in (*OLD_VERSIONS, *NEW_VERSIONS)
)

CASES = {case.name: case for case in (*BRIDGE, *PTP, *VERSIONS)}
