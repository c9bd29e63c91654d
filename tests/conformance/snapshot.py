"""Comparable pictures of a namespace's kernel state."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .namespaces import Namespace, run_ip

Entry = dict[str, Any]
Snapshot = dict[str, set[str]]

# Whether firewall rules are compared too; the report's header says so.
NFT = shutil.which("nft")

_SECTIONS: dict[str, str] = {
    "link": "link show",
    "address": "address show",
    "route": "route show table all",
    "rule": "rule show",
    "netconf": "netconf show",
}
_LINK_KEYS = ("ifname", "ifindex", "mtu", "master", "group", "promiscuity", "ifalias", "altnames")
# Flags that follow the carrier are the kernel's own and change by themselves.
_FLAGS = frozenset({"UP", "PROMISC", "ALLMULTI", "NOARP", "MULTICAST", "BROADCAST"})


def take(namespace: Namespace) -> Snapshot:
    """Links, addresses, routes, rules, per-interface sysctls and nft rules."""
    script = "\n".join(_SECTIONS.values()).encode() + b"\n"
    state = dict(zip(_SECTIONS, _read(namespace, script), strict=True))
    state["route6"], state["rule6"] = _read(namespace, b"route show table all\nrule show\n", "-6")
    picture = {name: _normalise(name, entries) for name, entries in state.items()}
    if NFT:
        picture["nft"] = _nft_rules(namespace)
    return picture


def _read(namespace: Namespace, script: bytes, *flags: str) -> list[list[Entry]]:
    text = run_ip("-n", namespace.name, *flags, "-j", "-d", "-batch", "-", stdin=script)
    return list(_documents(text.decode()))


def _documents(text: str) -> Iterator[list[Entry]]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        value, end = decoder.raw_decode(text, at)
        at = end + len(text[end:]) - len(text[end:].lstrip())
        yield [entry for entry in value if entry]


def _normalise(section: str, entries: Iterable[Entry]) -> set[str]:
    if section == "link":
        return {json.dumps(_link(entry), sort_keys=True) for entry in entries}
    if section == "address":
        return {_dump(a) for entry in entries for a in _addresses(entry)}
    if section.startswith("route"):
        return {_dump(_route(entry)) for entry in entries if not _is_link_local(entry)}
    return {_dump(entry) for entry in entries}


def _dump(entry: Entry) -> str:
    return json.dumps(entry, sort_keys=True)


def _link(entry: Entry) -> Entry:
    kept = {key: entry[key] for key in _LINK_KEYS if key in entry}
    info = entry.get("linkinfo", {})
    kept["kind"] = info.get("info_kind")
    kept["port"] = {
        key: info.get("info_slave_data", {}).get(key) for key in ("hairpin", "isolated", "vlan")
    }
    kept["flags"] = sorted(_FLAGS & set(entry["flags"]))
    if kept["kind"] != "bridge":  # a bridge may take the lowest MAC of its ports
        kept["mac"] = entry.get("address")
    return kept


def _addresses(entry: Entry) -> Iterator[Entry]:
    for address in entry.get("addr_info", ()):
        if address.get("scope") != "link":
            keys = ("local", "prefixlen", "scope", "label")
            yield {"dev": entry["ifname"], **{key: address.get(key) for key in keys}}


def _route(entry: Entry) -> Entry:
    dropped = ("flags", "expires", "cache", "pref")
    return {key: value for key, value in entry.items() if key not in dropped}


def _is_link_local(entry: Entry) -> bool:
    # They come and go with the carrier and duplicate address detection.
    return str(entry.get("dst", "")).startswith(("fe80:", "ff00:", "multicast"))


def _nft_rules(namespace: Namespace) -> set[str]:
    command = ("ip", "netns", "exec", namespace.name, str(NFT), "-j", "list", "ruleset")
    done = subprocess.run(command, capture_output=True, check=True)
    return {_dump(_without_handles(rule)) for rule in json.loads(done.stdout)["nftables"]}


def _without_handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_handles(v) for k, v in value.items() if k != "handle"}
    if isinstance(value, list):
        return [_without_handles(item) for item in value]
    return value


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What appeared (+) and what disappeared (-), one line each."""
    lines = []
    for section in before:
        gone, new = before[section] - after[section], after[section] - before[section]
        lines += [f"-{section} {entry}" for entry in sorted(gone)]
        lines += [f"+{section} {entry}" for entry in sorted(new)]
    return lines


@contextmanager
def unchanged(*namespaces: Namespace, ignore: Iterable[str] = ()) -> Iterator[None]:
    """Asserts that the block changes nothing; *ignore* names links to leave out."""
    before = [take(namespace) for namespace in namespaces]
    yield
    for namespace, picture in zip(namespaces, before, strict=True):
        lines = difference(picture, take(namespace))
        lines = [line for line in lines if not any(f'"{name}"' in line for name in ignore)]
        assert not lines, "the kernel's state changed:\n" + "\n".join(lines)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits for kernel work that is asynchronous by nature, such as a dying namespace."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
