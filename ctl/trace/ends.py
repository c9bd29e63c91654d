"""Source and destination of a trace, from what a person writes."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from ctl.attachments import Attachment, Attachments, find_attachments, find_pod
from daemon.model import Snapshot
from daemon.options import Unusable
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink

NODE, OUTSIDE = "node", "outside"
_CLIENTS = ip_address("203.0.113.1"), ip_address("3fff::1")
"""Clients without an address are of the documentation networks (RFC 5737, RFC 9637)."""


@dataclass(frozen=True, slots=True)
class End:
    """An end. pod: None for a node, or an address that is no pod's of this node.

    is_outside: whether it is a client beyond the node, whose packets come in by a link.
    """

    name: str
    addresses: tuple[IPAddress, ...]
    pod: Attachment | None = None
    is_outside: bool = False

    def address(self, version: int) -> IPAddress | None:
        """Its address of that family."""
        return next((a for a in self.addresses if a.version == version), None)


def check_port(port: int, protocol: str) -> None:
    """Raises Unusable where the protocol has no ports, or needs one."""
    if protocol == "icmp" and port:
        raise Unusable(f"ICMP has no ports: leave :{port} out, or trace /tcp or /udp")
    if protocol != "icmp" and not port:
        raise Unusable(f"{protocol} needs a port: DEST:PORT/{protocol}")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def find_source(nl: Netlink, attachments: Attachments, text: str) -> End:
    """The pod that sends, the node, or a client beyond it. Raises Unusable."""
    if text == NODE:
        return End(NODE, ())
    name, _, address = text.partition(":")
    if name == OUTSIDE and not address:
        return End(OUTSIDE, _CLIENTS, is_outside=True)
    if name == OUTSIDE:
        if not _is_address(address.strip("[]")):
            raise Unusable(f"{address!r} is no address: outside, or outside:ADDRESS")
        return End(OUTSIDE, (ip_address(address.strip("[]")),), is_outside=True)
    pod = find_pod(nl, attachments, text)[0]
    return End(pod.title, pod.ips, pod)


def find_destination(
    nl: Netlink, attachments: Attachments, snapshot: Snapshot | None, text: str
) -> End:
    """A pod of this node, a node of the cluster, or an address. Raises Unusable."""
    found = find_attachments(nl, attachments.found, text)
    if _is_address(text):
        return End(text, (ip_address(text),), found[0] if found else None)
    node = next((n for n in snapshot.nodes if n.name == text), None) if snapshot else None
    if node is not None and not found:
        return End(text, node.addresses)
    if not found and "/" not in text and "." in text:
        raise Unusable(f"{text!r} is no pod of this node: of anything else name the address")
    pod = find_pod(nl, attachments, text)[0]
    return End(pod.title, pod.ips, pod)
