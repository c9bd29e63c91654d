"""Connection tracking, through ctnetlink (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from typing import NamedTuple

from kernel.model import IPAddress
from kernel.netlink.codec import FAMILY, Message, attribute, nested, u8, u32
from kernel.netlink.socket import NETLINK_NETFILTER, open_netlink

_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_TUPLE_ORIGINAL, _FILTER = 1, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IP_DESTINATION = {4: 2, 6: 4}
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2
# net/netfilter/nf_internals.h, CTA_FILTER_F_*
_BY_DESTINATION, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 1, 1 << 3, 1 << 5
# Nothing to delete, or a kernel without connection tracking.
_NOTHING = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP})


class Flow(NamedTuple):
    """Connections to a port of the node, as their first packet has it. address: None for any."""

    version: int
    protocol: int
    port: int
    address: IPAddress | None = None


def forget_flows(flows: Iterable[Flow]) -> None:
    """Delete the entries of these connections: their next packet is translated anew.

    The kernel walks its table once for each (net/netfilter/nf_conntrack_netlink.c,
    ctnetlink_flush_conntrack). Raises KernelError.
    """
    messages = [_delete(flow) for flow in dict.fromkeys(flows)]
    if messages:
        with open_netlink(NETLINK_NETFILTER) as nl:
            nl.run(messages, tolerate=_NOTHING)


def _delete(flow: Flow) -> Message:
    flags = _BY_PROTOCOL | _BY_DESTINATION_PORT
    parts = []
    if flow.address is not None:
        flags |= _BY_DESTINATION
        parts.append(
            nested(_TUPLE_IP, attribute(_IP_DESTINATION[flow.version], flow.address.packed))
        )
    port = attribute(_DESTINATION_PORT, struct.pack("!H", flow.port))
    parts.append(nested(_TUPLE_PROTOCOL, u8(_PROTOCOL_NUMBER, flow.protocol), port))
    chosen = nested(_FILTER, u32(_FILTER_ORIGINAL, flags), u32(_FILTER_REPLY, 0))
    header = struct.pack("!BBH", FAMILY[flow.version], 0, 0)
    body = header + nested(_TUPLE_ORIGINAL, *parts) + chosen
    return Message(_DELETE, 0, body, ("forget connections to port", flow.port))
