"""MAC spoof check: the table `bridge podwire`.

Packet path: on a bridge, a port that is checked passes only frames of its own MAC.
"""

from __future__ import annotations

from kernel.model import Element
from kernel.netlink.socket import Netlink
from kernel.nftables.masquerade import IFNAMSIZ
from kernel.nftables.set_messages import read_sets
from kernel.nftables.table import Chain, Set, Table

_CHECKED = Set("bridge", "checked_ports", ("ifname",))
_ALLOWED = Set("bridge", "allowed_macs", ("ifname", "ether_addr"))
SETS = (_CHECKED, _ALLOWED)

PART = Table(
    "bridge",
    sets=SETS,
    chains=(
        Chain(
            "prerouting",
            "type filter hook prerouting priority dstnat",
            ("iifname @checked_ports iifname . ether saddr != @allowed_macs drop",),
        ),
    ),
)


def _name(port: str) -> bytes:
    return port.encode().ljust(IFNAMSIZ, b"\0")


def spoof_check_elements(port: str, mac: str) -> tuple[Element, Element]:
    """The elements that hold a bridge port to one MAC address."""
    # A field of a concatenation is padded to 32 bits (linux/netfilter/nf_tables.h).
    raw = bytes.fromhex(mac.replace(":", "")).ljust(8, b"\0")
    return _ALLOWED.element(_name(port) + raw), _CHECKED.element(_name(port))


def spoof_elements_of(nl: Netlink, port: str) -> tuple[Element, ...]:
    """The elements that hold a port to a MAC, found by the port's name."""
    name = _name(port)
    return tuple(e for e in read_sets(nl, SETS) if e.key.startswith(name))
