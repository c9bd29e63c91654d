#!/usr/bin/env python3
"""`make demo`: one node and two pods in namespaces of their own, wired by the installed podwire."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NAME = f"podwire-demo-{os.getpid()}"
NODE, OUTSIDE, PODS = f"{NAME}-node", f"{NAME}-outside", (f"{NAME}-a", f"{NAME}-b")
NODE_IP, OUTSIDE_IP = "192.0.2.10", "192.0.2.1"


def run(*argv: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
    """Run a program to its end; its stdout. Raises CalledProcessError."""
    done = subprocess.run(argv, input=stdin, env=env, capture_output=True, text=True, check=True)
    return done.stdout


def inside(namespace: str, *argv: str) -> str:
    """Run a program in a network namespace."""
    return run("nsenter", f"--net=/run/netns/{namespace}", *argv)


def set_sysctl(namespace: str, setting: str, value: str) -> None:
    """Set a kernel setting below net/ of a namespace."""
    run("nsenter", f"--net=/run/netns/{namespace}", "tee", f"/proc/sys/net/{setting}", stdin=value)


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


@dataclass(frozen=True)
class Reply:
    """What the plugin answered, and how long the call took in milliseconds."""

    body: dict[str, Any]
    status: int
    milliseconds: float


@dataclass(frozen=True)
class Plugin:
    """The installed executable, called as a container runtime would."""

    conf: dict[str, Any]
    data_dir: Path

    def call(self, verb: str, pod: str, previous: object = None) -> Reply:
        """One CNI call for a pod's eth0, in the node's namespace."""
        conf = self.conf | ({"prevResult": previous} if previous else {})
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(BIN),
            "CNI_ARGS": f"K8S_POD_NAMESPACE=demo;K8S_POD_NAME=pod-{pod[-1]}",
            "PODWIRE_DATA_DIR": str(self.data_dir),
        }
        begin = time.perf_counter()
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{NODE}", BIN / "podwire"],
            input=json.dumps(conf), env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        spent = (time.perf_counter() - begin) * 1000
        return Reply(json.loads(done.stdout or "{}"), done.returncode, spent)

    def expect(self, verb: str, pod: str, previous: object = None) -> Reply:
        """A call that must succeed."""
        reply = self.call(verb, pod, previous)
        if reply.status:
            fail(f"{verb} pod {pod[-1]}: {reply.body.get('msg')}; {reply.body.get('details', '')}")
        return reply


def fail(message: str) -> NoReturn:
    """End the demo; what it made is removed on the way out."""
    sys.exit(f"demo failed: {message}")


def make_node(undo: ExitStack) -> None:
    """A node whose uplink leads to an outside host."""
    for namespace in (NODE, OUTSIDE, *PODS):
        run("ip", "netns", "add", namespace)
        undo.callback(subprocess.run, ["ip", "netns", "del", namespace], check=False)
    run(
        "ip", "-n", NODE, "link", "add", "uplink", "type", "veth",
        "peer", "name", "eth0", "netns", OUTSIDE,
    )  # fmt: skip
    ends = ((NODE, "uplink", NODE_IP, "2001:db8::10"), (OUTSIDE, "eth0", OUTSIDE_IP, "2001:db8::1"))
    # As on any node that routes for pods already. And no test of addresses for duplicates: the
    # demo's own uplink would be silent for a second.
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        set_sysctl(NODE, setting, "1")
    for namespace, link, v4, v6 in ends:
        set_sysctl(namespace, f"ipv6/conf/{link}/accept_dad", "0")
        run("ip", "-n", namespace, "addr", "add", f"{v4}/24", "dev", link)
        run("ip", "-n", namespace, "addr", "add", f"{v6}/64", "dev", link, "nodad")
        run("ip", "-n", namespace, "link", "set", link, "up")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
    run("ip", "-n", NODE, "route", "add", "default", "via", OUTSIDE_IP)
    run("ip", "-n", NODE, "route", "add", "default", "via", "2001:db8::1")
    # A node that is in use has its router in its neighbour caches.
    for router in (OUTSIDE_IP, "2001:db8::1"):
        ping(NODE, router)


def snapshot() -> dict[str, str]:
    """All that podwire could leave in the node's kernel, as its tools list it."""
    listings = {
        "links": ("ip", "-o", "link"),
        "addresses": ("ip", "-o", "addr", "show", "scope", "global"),
        "routes": ("ip", "route", "show", "table", "all"),
        "IPv6 routes": ("ip", "-6", "route", "show", "table", "all"),
        "rules": ("nft", "list", "ruleset"),
    }
    return {name: inside(NODE, *argv) for name, argv in listings.items()}


def ping(namespace: str, address: str) -> str:
    """One ping; its round trip."""
    try:
        output = inside(namespace, "ping", "-n", "-c", "1", "-W", "2", address)
    except subprocess.CalledProcessError:
        fail(f"no answer from {address}")
    return output.partition("time=")[2].partition("\n")[0]


def show_traffic(addresses: dict[str, list[str]]) -> None:
    """Who reaches whom."""
    a, b = PODS
    ways = [
        ("pod a -> pod b", a, addresses[b][0]),
        ("pod a -> pod b, IPv6", a, addresses[b][1]),
        ("pod b -> pod a", b, addresses[a][0]),
        ("pod a -> node", a, NODE_IP),
        ("node -> pod b", NODE, addresses[b][0]),
        ("pod a -> outside, as the node", a, OUTSIDE_IP),
        ("pod a -> outside, IPv6", a, "2001:db8::1"),
    ]
    for title, namespace, address in ways:
        say(f"   {title:32} {address:14} answers in {ping(namespace, address)}")


def demonstrate(plugin: Plugin) -> None:
    """ADD, traffic, CHECK, a fault found, DEL, and what is left."""
    before = snapshot()
    say("2. Two pods get their network (CNI ADD)")
    results, addresses = {}, {}
    for pod in PODS:
        reply = plugin.expect("ADD", pod)
        results[pod] = reply.body
        addresses[pod] = [ip["address"].partition("/")[0] for ip in reply.body["ips"]]
        link = reply.body["interfaces"][0]["name"]
        say(
            f"   pod {pod[-1]}: eth0 has {' and '.join(addresses[pod])};"
            f" the node's end is {link} ({reply.milliseconds:.0f} ms)"
        )
    say("3. They talk")
    show_traffic(addresses)
    say("4. Who has which address (podwire-ipam list)")
    listing = run(str(BIN / "podwire-ipam"), "--data-dir", str(plugin.data_dir), "list")
    say("".join(f"   {line}\n" for line in listing.splitlines()).rstrip())
    say("5. They are checked (CNI CHECK), one is broken by hand, and CHECK says what is wrong")
    for pod in PODS:
        plugin.expect("CHECK", pod, results[pod])
        say(f"   pod {pod[-1]}: as planned")
    say("   $ ip route del default    (in pod a)")
    inside(PODS[0], "ip", "route", "del", "default")
    broken = plugin.call("CHECK", PODS[0], results[PODS[0]])
    if broken.status == 0:
        fail("CHECK did not see the missing route")
    say(f"   error {broken.body['code']}: {broken.body['msg']}")
    say("6. They are deleted (CNI DEL)")
    for pod in PODS:
        reply = plugin.expect("DEL", pod, results[pod])
        say(f"   pod {pod[-1]}: gone ({reply.milliseconds:.0f} ms)")
    show_remains(before, plugin)


def show_remains(before: dict[str, str], plugin: Plugin) -> None:
    """Compare the node with what it was before the first ADD."""
    after = snapshot()
    left = [name for name in before if before[name] != after[name]]
    holders = run(
        str(BIN / "podwire-ipam"), "--data-dir", str(plugin.data_dir), "list", "-o", "json"
    )
    left += ["allocated addresses"] if json.loads(holders) else []
    if left:
        fail("left behind: " + ", ".join(left))
    looked_at = ", ".join([*before, "allocated addresses"])
    say(f"7. Left behind in the node ({looked_at}): nothing")


def main() -> int:
    """Run the demo; remove everything it made, whatever happens."""
    if os.geteuid() != 0:
        fail("network namespaces need root: run it as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    conflist = json.loads((ROOT / "conf" / "ptp.conflist").read_text())
    conf = {"cniVersion": "1.0.0", "name": conflist["name"], **conflist["plugins"][0]}
    say("podwire: a node and two pods, in network namespaces that go when the demo ends")
    with ExitStack() as undo:
        folder = tempfile.mkdtemp(prefix="podwire-demo-")
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        make_node(undo)
        say("1. The node")
        say(f"   uplink {NODE_IP} and 2001:db8::10")
        say("   network conf/ptp.conflist: routed pairs, masqueraded, 10.88.0.0/24 and fd88::/64")
        demonstrate(Plugin(conf, Path(folder)))
    remains = [line for line in run("ip", "netns", "list").splitlines() if line.startswith(NAME)]
    if remains:
        fail(f"namespaces left: {', '.join(remains)}")
    say("   on this machine: nothing")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
