"""Where the configuration comes from, and what can be asked of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TEMPORARY = "@TMPDIR@"  # stands for a fresh folder of the test, in any string
NETWORK = "conformance"

FOUR = {"subnet": "10.89.0.0/24"}
SIX = {"subnet": "fd00:89::/64"}
_ROUTES = {"4": {"dst": "0.0.0.0/0"}, "6": {"dst": "::/0"}}
_DNS = {"nameservers": ["10.89.0.1"], "domain": "conformance.test"}

# Main plugin -> (its own keys, its IPAM). An address plan is added to the IPAM.
_KNOWN: dict[str, tuple[Json, Json]] = {
    "bridge": ({"bridge": "cnitest0", "isGateway": True}, {"type": "host-local"}),
    "ptp": ({}, {"type": "host-local"}),
    "podwire": ({"mode": "bridge", "bridge": "cnitest0", "isGateway": True}, {}),
}
# Plugins that change what others in front of them have made.
_CHAINED: dict[str, Json] = {
    "bandwidth": {"ingressRate": 10**9, "ingressBurst": 10**8},
    "firewall": {},
    "loopback": {},
    "portmap": {
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
            ]
        }
    },
    "tuning": {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
}
ALONE = "loopback"  # the one of them that needs no other plugin in front


class ConfError(Exception):
    """The options do not yield a configuration; the message says which and why."""


@dataclass(frozen=True, slots=True)
class NetConf:
    """The plugin configuration object from which each test's is made."""

    body: Json
    derived: bool

    def traits(self) -> frozenset[str]:
        """What the marker `cni_needs` can name."""
        kind = self.body.get("type")
        if kind in _CHAINED:
            return frozenset({"chained"} if kind == ALONE else {"chained", "previous"})
        found = {"main", "derived"} if self.derived else {"main"}
        ipam = self.body.get("ipam")
        if isinstance(ipam, dict):
            found.add("ipam")
            if {"subnet", "ranges"} & set(ipam):
                found.add("ranges")
        if self.body.get("dns"):
            found.add("dns")
        return frozenset(found)

    def instance(self, folder: Path) -> Json:
        """A private copy whose temporary folder is *folder*."""
        text = json.dumps(self.body).replace(TEMPORARY, str(folder))
        loaded: Json = json.loads(text)
        return loaded


def derive(plugin_name: str) -> NetConf:
    """The default for a plugin known by file name; raises ConfError."""
    if plugin_name in _CHAINED:
        keys = copy.deepcopy(_CHAINED[plugin_name])
        return NetConf({"name": NETWORK, "type": plugin_name, **keys}, derived=True)
    if plugin_name not in _KNOWN:
        known = ", ".join(sorted({*_KNOWN, *_CHAINED}))
        raise ConfError(f"no default configuration for {plugin_name!r} (only {known})")
    keys, ipam = copy.deepcopy(_KNOWN[plugin_name])
    plan = {"ranges": [[FOUR]], "routes": [_ROUTES["4"]], "dataDir": TEMPORARY}
    body = {"name": NETWORK, "type": plugin_name, **keys, "ipam": ipam | plan, "dns": _DNS}
    return NetConf(body, derived=True)


def load(path: Path, plugin_name: str) -> NetConf:
    """A file with a plugin configuration, or a list that has this plugin; raises ConfError."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfError(f"{path}: {error}") from error
    if not isinstance(body, dict):
        raise ConfError(f"{path}: not a JSON object")
    if "plugins" in body:
        body = _of_list(path, body, plugin_name)
    body.setdefault("name", NETWORK)
    return NetConf(body, derived=False)


def _of_list(path: Path, conflist: Json, plugin_name: str) -> Json:
    for plugin in conflist["plugins"]:
        if plugin.get("type") == plugin_name:
            return {**plugin, "name": conflist.get("name", NETWORK)}
    raise ConfError(f"{path}: no plugin of type {plugin_name!r} in it")


def with_pool(body: Mapping[str, Any], first: str, last: str) -> Json:
    """The same with a pool of the IPv4 addresses *first* to *last*, for host-local's keys."""
    ipam = {k: v for k, v in body["ipam"].items() if k not in _PLAN_KEYS}
    pool = {"subnet": FOUR["subnet"], "rangeStart": first, "rangeEnd": last}
    return {**body, "ipam": {**ipam, "ranges": [[pool]]}}


_PLAN_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway", "ranges")


def dual_stack(body: Mapping[str, Any]) -> Json:
    """The derived configuration with an IPv6 range beside the IPv4 one."""
    plan = {"ranges": [[FOUR], [SIX]], "routes": list(_ROUTES.values())}
    return {**body, "ipam": {**body["ipam"], **plan}}


def six_only(body: Mapping[str, Any]) -> Json:
    """The derived configuration with an IPv6 range in the place of the IPv4 one."""
    plan = {"ranges": [[SIX]], "routes": [_ROUTES["6"]]}
    return {**body, "ipam": {**body["ipam"], **plan}}


def second_network(body: Mapping[str, Any]) -> Json:
    """Another network on the same node, disjoint from the derived one."""
    ipam = {**body["ipam"], "ranges": [[{"subnet": "10.90.0.0/24"}]], "routes": []}
    other = {**body, "name": f"{body['name']}-second", "ipam": ipam}
    return other | ({"bridge": "cnitest1"} if "bridge" in body else {})


def with_ipam(body: Mapping[str, Any], plugin_type: str) -> Json:
    """The same with addresses from the delegated plugin *plugin_type*."""
    kept = {k: v for k, v in body["ipam"].items() if k == "dataDir"}
    return {**body, "ipam": {**kept, "type": plugin_type}}
