"""Matches and targets of iptables, in either flavour, as far as they are evaluated."""

from __future__ import annotations

import struct

from kernel.nftables.flow import Flow, Match

TRANSLATING = frozenset({"DNAT", "REDIRECT"})
"""Targets of iptables that translate the destination."""
DECIDING = frozenset({"NFQUEUE", "TPROXY", "SYNPROXY"})
"""Targets of iptables that end the packet's way through the chain, as another program decides."""
# linux/netfilter/xt_conntrack.h: the bit of the state of a packet that is not tracked, match_flags;
# the latter of the flags of `-m state`.
_UNTRACKED = 1 << 8
_STATE, _ALIAS = 1, 1 << 13
# linux/netfilter/xt_addrtype.h: types of source and destination, flags; XT_ADDRTYPE_LOCAL.
_ADDRTYPE, _TYPE_LOCAL = struct.Struct("=HHI"), 1 << 2
_PORTS = struct.Struct("=4H4B")  # the ports of struct xt_tcp, and of the shorter struct xt_udp
_INVERTED_PORT, _INVERTED_FLAGS, _SYN = 0x02, 0x04, 0x02


def match_xtables(name: str, info: bytes, flow: Flow) -> Match:
    """A match of iptables in either flavour (linux/netfilter/xt_conntrack.h, xt_state.h)."""
    if name == "comment":
        return "yes"
    if name in ("tcp", "udp") and len(info) >= _PORTS.size:
        return _match_port(name, info, flow)
    if name == "addrtype" and len(info) >= _ADDRTYPE.size and flow.is_local:
        return "yes" if _ADDRTYPE.unpack_from(info) == (0, _TYPE_LOCAL, 0) else "maybe"
    if name == "conntrack" and len(info) >= 152:
        return _match_conntrack(info, flow)
    if name == "state" and len(info) >= 4:
        return "yes" if struct.unpack_from("=I", info)[0] & flow.state() else "no"
    return "maybe"


def _match_conntrack(info: bytes, flow: Flow) -> Match:
    """xt_conntrack; of what is not tracked it compares the state alone (conntrack_mt)."""
    flags, inverted, states = struct.unpack_from("=HHH", info, 146)
    if not flags & _STATE:
        return "no" if flow.is_untracked else "maybe"
    fits = bool(states & flow.state(_UNTRACKED))
    if fits == bool(inverted & _STATE):
        return "no"
    others = flags & ~(_STATE | _ALIAS)
    return "maybe" if others and not flow.is_untracked else "yes"


def _match_port(name: str, info: bytes, flow: Flow) -> Match:
    """xt_tcp and xt_udp (linux/netfilter/xt_tcpudp.h)."""
    first_source, last_source, first, last, option, mask, compared, inverted = _PORTS.unpack_from(
        info
    )
    if name == "udp":
        option, mask, compared, inverted = 0, 0, 0, option
    if (first <= flow.port <= last) == bool(inverted & _INVERTED_PORT):
        return "no"
    # The packet that opens a connection has SYN alone.
    if (_SYN & mask == compared) == bool(inverted & _INVERTED_FLAGS):
        return "no"
    return "yes" if (first_source, last_source) == (0, 0xFFFF) and not option else "maybe"
