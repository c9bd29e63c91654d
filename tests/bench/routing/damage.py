"""What others do to a node's routing, and how to see that it is whole."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.netlink.socket import Netlink
from kernel.read import read_addresses
from kernel.vxlan import find_vxlan
from tests.bench.routing.bulk import count_entries
from tests.bench.routing.fleet import DEVICE, Listed
from tests.bench.world import Host
from tests.pytest_netns.node import SEARCH_PATH

FORWARDING = "net/ipv4/ip_forward"
SILENT = f"net/ipv6/conf/{DEVICE}/accept_ra"
"""A setting whose changes the kernel tells nobody."""
_STRANGER = "02:00:00:00:00:99"

Look = Callable[[Host], object]


@dataclass(frozen=True, slots=True)
class Damage:
    """do: brings it about. look: the part of the node's state that shows it."""

    do: Callable[[], None]
    look: Look


def list_damages(host: Host, own: Listed, peer: Listed) -> Mapping[str, Damage]:
    """Every kind, done to what leads to one peer."""
    fdb, neighbour, route = peer.entries
    first, gateway = neighbour.address, host.node.underlay.gateway(4)
    permanent = f"lladdr {_STRANGER} dev {DEVICE} nud permanent"
    commands: dict[str, tuple[str, Look]] = {
        "route deleted": (f"ip route del {route.dst}", count_entries),
        "route changed": (f"ip route replace {route.dst} via {gateway}", count_entries),
        "neighbour deleted": (f"ip neigh del {first} dev {DEVICE}", count_entries),
        "neighbour changed": (f"ip neigh replace {first} {permanent}", count_entries),
        "FDB entry deleted": (
            f"bridge fdb del {fdb.mac} dst {fdb.dst} dev {DEVICE} self",
            count_entries,
        ),
        "device down": (f"ip link set {DEVICE} down", look_at_all),
        "device deleted": (f"ip link del {DEVICE}", look_at_all),
        "device's address deleted": (
            f"ip address del {own.prefix.network_address}/32 dev {DEVICE}",
            look_at_device,
        ),
        "device's MTU changed": (f"ip link set {DEVICE} mtu 1300", look_at_device),
        "nft table deleted": ("nft delete table inet podwire", look_at_rules),
    }
    damages = {
        what: Damage(_command(host, command), look) for what, (command, look) in commands.items()
    }
    damages["forwarding off"] = _setting(host, FORWARDING, "0")
    damages["unannounced setting changed"] = _setting(host, SILENT, "2")
    return damages


def _command(host: Host, command: str) -> Callable[[], None]:
    def do() -> None:
        subprocess.run(command.split(), env={"PATH": SEARCH_PATH}, check=True, capture_output=True)

    return lambda: host.call(do)


def _setting(host: Host, name: str, value: str) -> Damage:
    path = Path("/proc/sys", name)

    def do() -> None:
        host.call(lambda: path.write_text(value))

    return Damage(do, lambda host: host.call(path.read_text))


def look_at_device(host: Host) -> object:
    """The VXLAN device with its addresses, whatever its number."""

    def read() -> object:
        with Netlink() as nl:
            link = find_vxlan(nl, DEVICE)
            if link is None:
                return None
            addresses = {a.address for a in read_addresses(nl, [link])}
            traits = link.up, link.mtu, link.mac, link.alias, link.vxlan
            return traits, {a for a in addresses if not a.is_link_local}

    return host.call(read)


def look_at_all(host: Host) -> object:
    """The device and all that leads to peers."""
    return look_at_device(host), count_entries(host)


def look_at_rules(host: Host) -> object:
    """podwire's rules, without counters."""
    argv = ["nft", "-s", "list", "table", "inet", "podwire"]
    done = host.call(
        lambda: subprocess.run(argv, env={"PATH": SEARCH_PATH}, capture_output=True, check=False)
    )
    return done.stdout
