"""An observation as a set of lines, without names and numbers that are chosen at random."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.netns.differential.cases import MAC
from tests.netns.differential.world import Observation
from tests.pytest_netns import Snapshot

ANY_MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")
FIXED_MACS = {MAC, "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"}
LINK_LOCAL = re.compile(r"\bfe80::[0-9a-f:]*[1-9a-f][0-9a-f:]*")

LINK_NOISE = {"ifindex", "link_index", "link_netnsid", "ifname", "link", "altnames", "ifalias"}
"""Members of a link that follow from the order of creation, or that only name it."""

BRIDGE_NOISE = {"bridge_id", "root_id", "designated_bridge", "designated_root", "no", "id"}


def facts(seen: Observation) -> set[str]:
    """Everything that was observed, one line for each atom."""
    names = _host_names(seen)
    lines = {
        *_flat("result", [_result(result, seen, names) for result in seen.results]),
        *_state("node", seen.node, names),
        *_state("node after DEL", seen.node_after, names),
    }
    lines |= {f"CHECK pod{index}: {said}" for index, said in enumerate(seen.checks)}
    for index, (pod, after) in enumerate(zip(seen.pods, seen.pods_after, strict=True)):
        lines |= {*_state(f"pod{index}", pod, {}), *_state(f"pod{index} after DEL", after, {})}
    return {_anonymous(line) for line in lines}


def _host_names(seen: Observation) -> dict[str, str]:
    """Names of the host ends, by pod: the peer of the pod's eth0 tells which."""
    peers = {
        link["link_index"]: f"host{index}"
        for index, pod in enumerate(seen.pods)
        for link in pod["links"]
        if link["ifname"] == "eth0"
    }
    return {
        link["ifname"]: peers[link["ifindex"]]
        for link in seen.node["links"]
        if link["ifindex"] in peers
    }


def _result(result: dict[str, Any], seen: Observation, names: dict[str, str]) -> dict[str, Any]:
    text = json.dumps(result)
    for index, path in enumerate(seen.pod_paths):
        text = text.replace(f'"{path}"', f'"pod{index}"')
    for real, name in names.items():
        text = text.replace(f'"{real}"', f'"{name}"')
    renamed = json.loads(text)
    assert isinstance(renamed, dict)
    return renamed


def _state(where: str, state: Snapshot, names: dict[str, str]) -> Iterator[str]:
    """Lines of one namespace. Firewall rules are compared by the traffic that they let pass."""
    for link in state["links"]:
        name = names.get(link["ifname"], link["ifname"])
        members = {key: value for key, value in link.items() if key not in LINK_NOISE}
        if "master" in members:
            members["master"] = names.get(members["master"], members["master"])
        yield from _flat(f"{where} link {name}", members)
    for entry in state["addresses"]:
        name = names.get(entry.get("ifname", ""), entry.get("ifname", ""))
        for info in entry.get("addr_info", []):
            if not info["local"].startswith("fe80:"):
                yield f"{where} address {name} {_renamed(info, names)}"
    for section in ("routes", "rules", "neighbours"):
        for entry in state[section]:
            if not _derived(entry):
                yield f"{where} {section} {_renamed(entry, names)}"
    for entry in state["sysctls"]:
        # Of a link: family/link/name. Of the namespace: its path below /proc/sys/net.
        key = "/".join(names.get(part, part) for part in entry["key"].split("/"))
        yield f"{where} sysctl {key} = {entry['value']}"


def _derived(route: dict[str, Any]) -> bool:
    """Whether the kernel adds the route by itself, with a link or an address."""
    return route.get("table") == "local" or str(route.get("dst", "")).startswith(("fe80:", "ff00:"))


def _renamed(entry: dict[str, Any], names: dict[str, str]) -> str:
    renamed = {
        key: names.get(value, value) if isinstance(value, str) else value
        for key, value in entry.items()
    }
    return json.dumps(renamed, sort_keys=True)


def _flat(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, member in value.items():
            if key not in BRIDGE_NOISE:
                yield from _flat(f"{path}.{key}", member)
    elif isinstance(value, list) and value:
        for index, member in enumerate(value):
            yield from _flat(f"{path}[{index}]", member)
    else:
        yield f"{path} = {value}"


def _anonymous(line: str) -> str:
    line = ANY_MAC.sub(lambda found: found[0] if found[0] in FIXED_MACS else "MAC", line)
    return LINK_LOCAL.sub("fe80::LL", line)
