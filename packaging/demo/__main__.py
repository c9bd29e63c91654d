"""`make demo`: two nodes with two pods each, in namespaces, wired by the installed podwire."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cluster import (
    NAME,
    OUTSIDE,
    Node,
    Reply,
    enter,
    fail,
    inside,
    make_underlay,
    ping,
    quote,
    run,
    say,
    wait_until,
)
from etcd import Etcd

ADDED: dict[str, Reply] = {}
ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end the demo in order, as Ctrl-C does: stopped, or its terminal was closed."""

# Prints "ready", then the first VXLAN packet (RFC 7348 section 5) with IPv4 inside that leaves.
CAPTURE = """
import socket, struct
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003)) as wire:
    wire.settimeout(10)
    wire.bind(("uplink", 0x0003))
    print("ready", flush=True)
    while True:
        data, (_, protocol, direction, *_) = wire.recvfrom(2048)
        outer = data[:20]
        if protocol != 0x0800 or direction != socket.PACKET_OUTGOING or outer[9] != 17:
            continue
        port, = struct.unpack_from("!H", data, 22)
        inner = data[50:70]
        if port == 8472 and inner[:1] == b"\\x45":
            break
ip = lambda header, at: socket.inet_ntoa(header[at:at + 4])
vni = int.from_bytes(data[32:35], "big")
print(f"{ip(outer, 12)} > {ip(outer, 16)}  UDP {port}, VXLAN {vni}:"
      f"  {ip(inner, 12)} > {ip(inner, 16)}  ICMP")
"""


def write_down(nodes: tuple[Node, Node], folder: Path) -> None:
    """The cluster as a list of nodes, the same on both."""
    entries = [
        {
            "name": node.name,
            "addresses": node.addresses,
            "podCIDRs": [f"10.244.{node.number}.0/24", f"fd00:10:244:{node.number}::/64"],
        }
        for node in nodes
    ]
    listing = folder / "nodes.yaml"
    listing.write_text(json.dumps({"clusterCIDRs": ["10.244.0.0/16"], "nodes": entries}))
    for node in nodes:
        node.configure({"static": str(listing)})


def found(nodes: tuple[Node, Node], folder: Path, undo: ExitStack) -> Etcd:
    """A cluster that is nobody's list: the nodes lease their pods' subnets from an etcd."""
    etcd = Etcd(folder / "etcd")
    etcd.make(undo)
    for node in nodes:
        node.configure(etcd.source(node.addresses))
    return etcd


def start(nodes: tuple[Node, Node], folder: Path, undo: ExitStack, source: str) -> None:
    """Set the cluster up, start a daemon on each node, wait until both are in sync."""
    beside = ", an etcd beside them" if source == "etcd" else ""
    say(f"1. Two nodes on one network, a daemon on each (podwired run){beside}")
    etcd = None
    if source == "etcd":
        etcd = found(nodes, folder, undo)
    else:
        write_down(nodes, folder)
    daemons = [node.start_daemon(undo) for node in nodes]

    def ready() -> bool:
        for node, daemon in zip(nodes, daemons, strict=True):
            if daemon.poll() is not None:
                fail(f"{node.name}'s daemon ended: {(node.folder / 'log').read_text()}")
        return all(node.in_sync for node in nodes)

    spent = wait_until("sync of both nodes", ready)
    for node in nodes:
        say(f"   {node.name}  {' and '.join(node.addresses)}, pods {' and '.join(node.pod_cidrs)}")
    if etcd is not None:
        etcd.show()
    say(f"   in sync after {spent / 1000:.1f} s; $ podwirectl status    (on {nodes[0].name})")
    quote(nodes[0].podwirectl("status"))


def attach(nodes: tuple[Node, Node]) -> None:
    """ADD two pods on each node, with the configuration that its daemon wrote."""
    say("2. Two pods on each are attached (CNI ADD, with the conflist that the daemon wrote)")
    for node in nodes:
        for pod in node.pods:
            reply = ADDED[pod] = node.expect("ADD", pod)
            where = f"pod {pod[-1]} on {node.name}"
            say(f"   {where}: {' and '.join(reply.addresses)} ({reply.milliseconds:.0f} ms)")


def show_traffic(nodes: tuple[Node, Node]) -> None:
    """Round trips between pods, nodes and the outside."""
    say("3. Traffic between them")
    (a, b), (c, d) = (node.pods for node in nodes)
    ways = [
        ("pod a -> pod b, same node", a, ADDED[b].addresses[0]),
        ("pod a -> pod c, other node", a, ADDED[c].addresses[0]),
        ("pod a -> pod c, IPv6", a, ADDED[c].addresses[1]),
        ("pod d -> pod b, other node", d, ADDED[b].addresses[0]),
        ("node-1 -> pod d, other node", nodes[0].namespace, ADDED[d].addresses[0]),
        ("pod a -> outside, as its node", a, OUTSIDE[0]),
        ("pod a -> outside, IPv6", a, OUTSIDE[1]),
    ]
    for title, namespace, address in ways:
        say(f"   {title:32} {address:18} answers in {ping(namespace, address)}")


def show_path(nodes: tuple[Node, Node]) -> None:
    """Each step of a packet from pod a to pod c."""
    say("4. The path of a packet from pod a to pod c")
    a, c = nodes[0].pods[0], nodes[1].pods[0]
    here, there = (node.namespace for node in nodes)
    target, hop = ADDED[c].addresses[0], nodes[1].pod_cidrs[0].partition("/")[0]
    neighbours = ("ip", "neigh", "show", "dev", "podwire-vxlan", "to", hop)
    steps = [
        ("pod a", a, ("ip", "-o", "route", "get", target), target),
        ("node-1, route", here, ("ip", "route", "show", nodes[1].pod_cidrs[0]), hop),
        ("node-1, neighbour", here, neighbours, hop),
        ("node-1, FDB", here, ("bridge", "fdb", "show", "dev", "podwire-vxlan"), " dst "),
        ("node-2, route", there, ("ip", "-o", "route", "get", target), target),
    ]
    for title, namespace, argv, word in steps:
        lines = [line for line in inside(namespace, *argv).splitlines() if word in line]
        if not lines:
            fail(f"{title}: no line with {word}")
        say(f"   {title:22} {' '.join(lines[0].partition(' uid ')[0].split())}")
    say(f"   {'on the wire':22} {capture(nodes[0], lambda: ping(a, target))}")


def capture(node: Node, cause: Callable[[], object]) -> str:
    """The VXLAN packet that leaves the node when this is done."""
    argv = [*enter(node.namespace), sys.executable, "-c", CAPTURE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as sniffer:
        try:
            if sniffer.stdout is None or sniffer.stdout.readline() != "ready\n":
                fail("the capture did not start")
            cause()
            line = sniffer.stdout.readline().strip()
        finally:
            sniffer.terminate()
    return line or fail("no VXLAN packet left the node")


def damage(nodes: tuple[Node, Node]) -> None:
    """Delete a route and the device by hand; podwired restores them."""
    say("5. A route and the VXLAN device are deleted by hand; podwired restores them")
    node, pod = nodes[0], nodes[0].pods[0]
    target, prefix = ADDED[nodes[1].pods[0]].addresses[0], nodes[1].pod_cidrs[0]

    def route() -> str:
        return inside(node.namespace, "ip", "route", "show", prefix)

    before = route()
    for argv in (("ip", "route", "del", prefix), ("ip", "link", "del", "podwire-vxlan")):
        say(f"   $ {' '.join(argv)}    (on {node.name})")
        inside(node.namespace, *argv)
        spent = wait_until(f"return of the route to {prefix}", lambda: route() == before)
        wait_until("sync of the node", lambda: node.in_sync)
        say(f"   restored after {spent:.0f} ms; pod c answers pod a in {ping(pod, target)}")
    say(f"   $ podwirectl history    (on {node.name})")
    quote(node.podwirectl("history"))


def check(nodes: tuple[Node, Node]) -> None:
    """CHECK names the difference in a pod."""
    say("6. CNI CHECK of a sound pod, and of one whose route is changed by hand")
    a, b = nodes[0].pods
    nodes[0].expect("CHECK", b, ADDED[b].body)
    say("   pod b: no difference")
    say("   $ ip route replace default dev eth0    (in pod a)")
    inside(a, "ip", "route", "replace", "default", "dev", "eth0")
    broken = nodes[0].call("CHECK", a, ADDED[a].body)
    if broken.status == 0:
        fail("CHECK did not see the other route")
    say(f"   error {broken.body['code']}: {broken.body['msg']}")


def explain(nodes: tuple[Node, Node]) -> None:
    """Another program's firewall breaks a node: podwire leaves it, and says what is wrong."""
    say("7. Another program's firewall drops what pods send; podwirectl doctor explains it")
    node = nodes[0]
    inside(node.namespace, "nft", "add", "table", "inet", "hardening")
    hook = "{ type filter hook forward priority 0; policy drop; }"
    say(f"   $ nft add chain inet hardening forward '{hook}'    (on {node.name})")
    inside(node.namespace, "nft", "add", "chain", "inet", "hardening", "forward", hook)
    say(f"   $ podwirectl doctor    (on {node.name})")
    lines = node.doctor().splitlines()
    if not lines or "table inet hardening" not in lines[0]:
        fail(f"doctor did not name the firewall: {lines}")
    quote(lines[0], most=300)
    inside(node.namespace, "nft", "delete", "table", "inet", "hardening")
    wait_until("sync of the node", lambda: node.in_sync)


def detach(nodes: tuple[Node, Node], before: list[dict[str, str]]) -> None:
    """DEL all pods, and compare the nodes with what they were before the first ADD."""
    say("8. The pods are removed (CNI DEL)")
    for node in nodes:
        for pod in node.pods:
            reply = node.expect("DEL", pod, ADDED[pod].body)
            say(f"   pod {pod[-1]}: removed ({reply.milliseconds:.0f} ms)")
    for node, old in zip(nodes, before, strict=True):
        new = node.snapshot()
        left = [name for name in old if old[name] != new[name]]
        if left:
            fail(f"left behind on {node.name}: {', '.join(left)}")
    say(f"9. Left behind on the nodes ({', '.join(before[0])}): nothing")


def play(source: str) -> None:
    """The whole demo; what it made is gone when this returns or raises."""
    with ExitStack() as undo:
        try:
            perform(undo, source)
        finally:
            # A second Ctrl-C must not stop the tidying up.
            for number in (signal.SIGINT, *ENDINGS):
                signal.signal(number, signal.SIG_IGN)


def perform(undo: ExitStack, source: str) -> None:
    """All scenes, in order."""
    folder = Path(tempfile.mkdtemp(prefix="podwire-demo-"))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    # Of all programs of the demo: the machine's own list of stores stays as it was.
    os.environ["PODWIRE_STORES"] = str(folder / "stores")
    nodes = Node(1, folder / "1"), Node(2, folder / "2")
    make_underlay(undo)
    for node in nodes:
        node.make(undo)
    start(nodes, folder, undo, source)
    before = [node.snapshot() for node in nodes]
    attach(nodes)
    show_traffic(nodes)
    show_path(nodes)
    damage(nodes)
    check(nodes)
    explain(nodes)
    detach(nodes, before)


def main() -> int:
    """Run the demo, and see to it that nothing is left, whatever happens."""
    parser = argparse.ArgumentParser(description="Two nodes whose pods talk.")
    words = "the source of the list of nodes (default: %(default)s)"
    parser.add_argument("--source", choices=("static", "etcd"), default="static", help=words)
    source = parser.parse_args().source
    if os.geteuid() != 0:
        fail("network namespaces need root: run it as root")
    for ending in ENDINGS:
        if signal.getsignal(ending) != signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    say("podwire: two nodes with two pods each, in network namespaces; the demo removes them")
    play(source)
    remains = [line for line in run("ip", "netns", "list").splitlines() if line.startswith(NAME)]
    if remains:
        fail(f"namespaces left: {', '.join(remains)}")
    say("   on this machine: nothing")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        fail(f"{' '.join(map(str, error.cmd))}: {error.stderr.strip() or error.returncode}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read this has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
