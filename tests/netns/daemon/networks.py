"""Networks that tests call the daemon for, and what may be left of them."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.netns.daemon.conftest import Daemon
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import CniResult, Node

Conf = dict[str, Any]
MakePod = Callable[[], Namespace]

CONF: Conf = {
    "cniVersion": "1.1.0",
    "name": "warm",
    "type": "podwire",
    "mode": "ptp",
    "ipMasq": True,
    "ipam": {
        "ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd66::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


def netconf(name: str, number: int, mode: str, *, dual: bool = False, **keys: Any) -> Conf:
    """A network of its own: 10.NUMBER.0.0/24, with `dual` fdNUMBER::/64 too."""
    ranges = [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd{number}::/64"}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    if mode == "bridge":
        keys = {"bridge": f"br{number}", "isGateway": True, **keys}
    count = 1 + dual
    ipam = {"ranges": ranges[:count], "routes": routes[:count]}
    return {**CONF, "name": name, "mode": mode, "ipMasq": False, "ipam": ipam, **keys}


def held(node: Node, podwire_bin: Path) -> list[dict[str, Any]]:
    """What `podwire-ipam list` shows."""
    listing = node.run([podwire_bin / "podwire-ipam", "-o", "json", "list"], check=False).stdout
    return list(json.loads(listing or "[]"))


def left_over(node: Node, podwire_bin: Path, pods: Sequence[Namespace]) -> list[str]:
    """Links, tables and allocations that are there although nothing is attached."""
    names = [str(link["ifname"]) for link in node.ip("link show")]
    left = [name for name in names if name.startswith("pw")]
    for pod in pods:
        left += [str(link["ifname"]) for link in pod.ip("link show") if link["ifname"] != "lo"]
    left += filter(None, node.run(["nft", "list", "tables"]).stdout.split("\n"))
    return left + [str(row) for row in held(node, podwire_bin)]


def call_all(
    daemon: Daemon, program: Path, verb: str, pods: Sequence[Namespace]
) -> list[CniResult]:
    """One verb for container c0, c1, ... of every pod, 16 at once."""

    def one(number: int) -> CniResult:
        netns = pods[number].path
        return daemon.cni(verb, program, CONF, container_id=f"c{number}", netns=netns)

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(one, range(len(pods))))


def failures(answers: Sequence[CniResult]) -> list[CniResult]:
    """Those that are no success."""
    return [answer for answer in answers if answer.code]
