"""The kernel state of a namespace as plain data, to compare before with after."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.pytest_netns.namespace import Namespace, run

Snapshot = dict[str, list[dict[str, Any]]]
"""Objects by section: links, addresses, routes, rules, neighbours, ports, fdb, sysctls, nft."""

ROUTING = {
    "routes": "route show table all",
    "rules": "rule show",
    "neighbours": "neighbour show nud permanent",
}
"""Sections of each address family: what `ip` says to these commands."""

VOLATILE = {
    # Counters, timers and states that pass by themselves.
    *("stats", "stats64", "valid_life_time", "preferred_life_time", "tentative", "optimistic"),
    *("hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "hold_timer"),
    *("message_age_timer", "forward_delay_timer", "updated", "used", "handle", "expires"),
    *("tentative", "operstate", "age", "packets", "bytes", "flags"),
}
LINK_FLAGS = {"UP", "PROMISC", "ALLMULTI", "NOARP", "BROADCAST", "MULTICAST", "POINTOPOINT"}
"""Link flags that somebody sets; the others follow from the state of the peer."""

NODE_SYSCTLS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
LINK_SYSCTLS = {
    "ipv4": (
        *("accept_local", "arp_ignore", "arp_notify", "forwarding", "proxy_arp"),
        *("route_localnet", "rp_filter", "send_redirects"),
    ),
    "ipv6": (
        *("accept_dad", "accept_ra", "addr_gen_mode", "autoconf", "disable_ipv6"),
        *("forwarding", "keep_addr_on_down", "proxy_ndp"),
    ),
}


def snapshot(ns: Namespace) -> Snapshot:
    """State of a namespace without what changes by itself; equal snapshots, equal state."""
    state: Snapshot = {"links": ns.ip("-d link show"), "addresses": ns.ip("address show")}
    for family in ("-4", "-6"):
        for section, entries in _batch(ns, family, ROUTING):
            state.setdefault(section, []).extend(entries)
    state["ports"] = _bridge(ns, "-d link show")
    state["routes"] = [entry for entry in state["routes"] if not _is_link_local(entry)]
    state["fdb"] = [entry for entry in _bridge(ns, "fdb show") if _is_made(entry)]
    state["sysctls"] = ns.call(lambda: list(_read_sysctls()))
    state["nft"] = json.loads(ns.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    for item in state["nft"]:
        if item.get("set", {}).get("name", "").startswith("probe_rates"):
            item["set"].pop("elem", None)  # packets of probes add these, each for some seconds
    return {name: sorted(map(_steady, entries), key=_text) for name, entries in state.items()}


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """What appeared (+) and what vanished (-), one line for each object."""
    lines = []
    for section in before:
        old, new = ({_text(entry) for entry in state[section]} for state in (before, after))
        lines += [f"- {section} {text}" for text in sorted(old - new)]
        lines += [f"+ {section} {text}" for text in sorted(new - old)]
    return lines


def _batch(
    ns: Namespace, family: str, commands: Mapping[str, str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What `ip` says to some commands, by their keys: one program, for each line one."""
    argv = ["ip", "-n", ns.name, "-j", family, "-batch", "-"]
    lines = run(argv, stdin="\n".join(commands.values()) + "\n").stdout.splitlines()
    for key, line in zip(commands, lines, strict=True):
        # Empty objects stand for what `ip` filtered out.
        yield key, [entry for entry in json.loads(line) if entry]


def _bridge(ns: Namespace, command: str) -> list[dict[str, Any]]:
    # `bridge -n` of iproute2 6.1 prints nothing when there is no bridge port.
    text = run(["bridge", "-n", ns.name, "-j", *command.split()]).stdout
    return list(json.loads(text)) if text.strip() else []


def _is_link_local(route: dict[str, Any]) -> bool:
    """Whether the kernel adds it to the local table once no other node has the address."""
    return route.get("table") == "local" and str(route["dst"]).startswith("fe80:")


def _is_made(entry: dict[str, Any]) -> bool:
    """Whether somebody made it: groups of IPv6 are joined some time after an address came."""
    return entry.get("state") == "permanent" and not entry["mac"].startswith("33:33:")


def _read_sysctls() -> Iterator[dict[str, Any]]:
    for key in NODE_SYSCTLS:
        yield {"key": key, "value": Path("/proc/sys/net", key).read_text().strip()}
    for family, names in LINK_SYSCTLS.items():
        for conf in sorted(Path("/proc/sys/net", family, "conf").iterdir()):
            for name in names:
                path = conf / name
                if path.exists():
                    yield {"key": f"{family}/{conf.name}/{name}", "value": path.read_text().strip()}


def _steady(entry: Any) -> Any:
    """The entry without its volatile members."""
    if isinstance(entry, list):
        return [_steady(item) for item in entry]
    if not isinstance(entry, dict):
        return entry
    steady = {key: _steady(value) for key, value in entry.items() if key not in VOLATILE}
    if "ifname" in entry and "flags" in entry:
        steady["flags"] = sorted(LINK_FLAGS & set(entry["flags"]))
    if "learning" in entry:  # a bridge's port: its state follows the link's, a moment later
        steady.pop("state", None)
    return steady


def _text(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True)
