"""Names that podwire derives for an attachment, and the mark it leaves on its links.

The node-side link's alias names its attachment; a damaged store is rebuilt from these aliases.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_interface

from cni_plugin.config import LEASING
from ipam.transaction import Owner
from kernel.model import HOST_LINK_PREFIX, IPInterface

_MARK = "podwire"
_IFB_PREFIX = "bwp"
_HOST_LINK = re.compile(rf"({HOST_LINK_PREFIX}[0-9a-f]{{11}}|{_IFB_PREFIX}[0-9a-f]{{12}})\Z")
# IFALIASZ is 256, and the kernel counts the NUL that ends the text (net/core/dev.c).
ALIAS_MAX = 254


@dataclass(frozen=True, slots=True)
class Mark:
    """What an alias has of its attachment. pod may be cut off; the rest is whole.

    hairpin: whether its connections to itself are masqueraded, as all are of those that are
    masqueraded at all.
    """

    owner: Owner
    addresses: tuple[IPInterface, ...] = ()
    masquerade: bool = False
    ipam: str = ""
    pod: str = ""
    hairpin: bool = False


def host_link_name(owner: Owner) -> str:
    """The node-side link: pw and 11 hex digits of the attachment's key."""
    return HOST_LINK_PREFIX + _digest(*_key_of(owner)).hex()[:11]


def ifb_name(owner: Owner) -> str:
    """The ifb device that limits what a container sends: the name is that of the reference's."""
    key = owner.network + owner.container_id
    return _IFB_PREFIX + hashlib.sha512(key.encode()).hexdigest()[:12]


def is_host_link_name(name: str) -> bool:
    """Whether a node's link may be an attachment's, by its name."""
    return _HOST_LINK.match(name) is not None


def derive_mac(side: str, *key: str) -> str:
    """A locally administered unicast MAC (IEEE 802 section 8.4), the same for the same key.

    Derived from an address it stays right in neighbours' caches when the address is used again.
    """
    raw = bytearray(_digest(side, *key)[:6])
    raw[0] = raw[0] & 0xFC | 0x02
    return raw.hex(":")


def pod_mac(mark: Mark) -> str:
    """The MAC of the pod's link, unless the caller requested another.

    A link by which addresses are leased has it before it has one.
    """
    if mark.addresses and mark.ipam not in LEASING:
        return derive_mac("pod", mark.owner.network, str(mark.addresses[0]))
    return derive_mac("pod", *_key_of(mark.owner))


def node_mac(owner: Owner) -> str:
    """The MAC of the node-side link."""
    return derive_mac("node", *_key_of(owner))


def link_local(mac: str) -> IPv6Address:
    """The link-local address that follows from a MAC (RFC 4291 appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    interface = bytes((raw[0] ^ 2,)) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def _key_of(owner: Owner) -> tuple[str, str, str]:
    return owner.network, owner.container_id, owner.ifname


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def render_alias(mark: Mark) -> str:
    """The alias of a node-side link; for IDs too long for it, one that `parse_alias` refuses."""
    words = [
        _MARK,
        f"net={mark.owner.network}",
        f"id={mark.owner.container_id}",
        f"if={mark.owner.ifname}",
        f"ip={','.join(map(str, mark.addresses))}",
    ]
    words += ["masq"] if mark.masquerade else ["hairpin"] if mark.hairpin else []
    words += [f"ipam={mark.ipam}"] if mark.ipam else []
    alias = " ".join(words)
    if len(alias) > ALIAS_MAX:
        return f"{_MARK}: the attachment's name is too long to be written here"
    return f"{alias} pod={mark.pod}"[:ALIAS_MAX] if mark.pod else alias


def is_marked(alias: str | None) -> bool:
    """Whether a link is podwire's, be the attachment named or not."""
    return (alias or "").partition(" ")[0].rstrip(":") == _MARK


def parse_alias(alias: str | None) -> Mark | None:
    """The attachment in an alias of podwire's; None for any other alias."""
    words = (alias or "").split(" ")
    if words[0] != _MARK:
        return None
    pairs = dict(word.partition("=")[::2] for word in words[1:])
    if not {"net", "id", "if", "ip"} <= pairs.keys():
        return None
    try:
        addresses = tuple(ip_interface(a) for a in filter(None, pairs["ip"].split(",")))
    except ValueError:
        return None
    return Mark(
        Owner(pairs["net"], pairs["id"], pairs["if"]), addresses,
        "masq" in pairs, pairs.get("ipam", ""), pairs.get("pod", ""),
        not pairs.keys().isdisjoint(("masq", "hairpin")),
    )  # fmt: skip
