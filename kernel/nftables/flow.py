"""A packet that rules of other programs are evaluated for: what is known of it, and only that."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kernel.model import HOST_LINK_PREFIX, IPAddress
from kernel.nftables.table import link_key

# linux/netfilter/nf_tables.h: keys of `meta`, and where headers begin.
_PROTOCOL, _IIF, _OIF, _IIFNAME, _OIFNAME, _NFPROTO, _L4PROTO = 1, 4, 5, 6, 7, 15, 16
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_ETHERTYPE = 12, 2  # its offset and length in a frame
# What is known of a header, from byte to byte: version and length, fragment, protocol, addresses;
# in IPv6 the last two; of TCP and UDP the port that the packet goes to.
_KNOWN = {
    (_NETWORK, 4): ((0, 1), (6, 8), (9, 10), (12, 20)),
    (_NETWORK, 6): ((6, 7), (8, 40)),
    (_TRANSPORT, 4): ((2, 4),),
    (_TRANSPORT, 6): ((2, 4),),
}
# linux/netfilter/nf_conntrack_common.h: bits of the state of a packet that begins a connection, and
# of one that is not tracked.
_NEW, _UNTRACKED = 1 << 3, 1 << 6

Match = Literal["yes", "no", "maybe"]
"""Whether a rule, or a part of it, matches."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a connection. Empty link names are unknown. protocol: 6 or 17.

    is_local: whether it is known to go to an address of the node's own. is_untracked: whether it is
    kept out of connection tracking, as VXLAN between nodes is. is_example: whether its pods stand
    for others.
    """

    source: IPAddress
    to: IPAddress
    protocol: int
    port: int
    iif: str = ""
    oif: str = ""
    is_local: bool = False
    is_untracked: bool = False
    is_example: bool = False

    def header(self, base: int, offset: int, length: int) -> Sequence[int | None] | None:
        """Bytes of its IP header or of that of TCP or UDP; None for what is not known here."""
        if (base, offset, length) == (_LINK, *_ETHERTYPE):
            return self.meta(_PROTOCOL)
        known = _KNOWN.get((base, self.to.version), ())
        if base == _TRANSPORT:
            header = struct.pack("!2xH", self.port)
        elif self.to.version == 4:
            header = struct.pack("!B8xB2x", 0x45, self.protocol)
        else:
            header = struct.pack("!6xBx", self.protocol)
        header += self.source.packed + self.to.packed
        return [
            header[at] if any(first <= at < end for first, end in known) else None
            for at in range(offset, offset + length)
        ]

    def meta(self, key: int) -> bytes | None:
        """What the kernel knows of it beside its bytes; None for what is not known here."""
        is_v4 = self.to.version == 4
        names = {_IIFNAME: self.iif, _OIFNAME: self.oif}
        if names.get(key):
            return link_key(names[key])
        if link := {_IIF: self.iif, _OIF: self.oif}.get(key):
            return struct.pack("=I", _index(link))
        values = {
            _PROTOCOL: b"\x08\x00" if is_v4 else b"\x86\xdd",
            _NFPROTO: bytes([2 if is_v4 else 10]),
            _L4PROTO: bytes([self.protocol]),
        }
        return values.get(key)

    def is_example_in(self, key: bytes) -> bool:
        """Whether a key has an address or a link that another pod has another one for."""
        links = (name for name in (self.iif, self.oif) if name.startswith(HOST_LINK_PREFIX))
        own = (self.source.packed, self.to.packed, *map(str.encode, links))
        return self.is_example and any(part in key for part in own)

    def state(self, untracked: int = _UNTRACKED) -> int:
        """The bit of its state in connection tracking. untracked: that of a packet that is not."""
        return untracked if self.is_untracked else _NEW


def _index(link: str) -> int:
    """Its index, of the calling thread's namespace; 0, which no rule has, where there is none.

    A link that is gone gets another one when it is made anew: no rule by index is about that.
    """
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def without_oif(flow: Flow) -> Flow:
    """The packet before it is routed."""
    return replace(flow, oif="")


def is_of_service(table: str, chain: str) -> bool:
    """Whether rules of a chain are kube-proxy's, by the names that it gives in its modes."""
    return table == "kube-proxy" or chain.startswith("KUBE-")
