"""What kernels and routers say of datagrams that cannot arrive: errors of calls, and ICMP."""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import ip_address

from daemon.probes.inspection import Refusal

# linux/errqueue.h, struct sock_extended_err: errno, origin, type, code, padding, info, data; then
# the address of whoever said so.
_ERROR = struct.Struct("=iBBBxII")
_LOCAL, _ICMP, _ICMP6 = 1, 2, 3
_RECVERR = {(socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25)}
# RFC 792, RFC 1812 section 5.2.7.1; RFC 4443 section 3.1: (type, code).
_PORT = {_ICMP: {(3, 3)}, _ICMP6: {(1, 4)}}
_FORBIDDEN = {_ICMP: {(3, 9), (3, 10), (3, 13)}, _ICMP6: {(1, 1), (1, 5), (1, 6)}}
_SIZE = {_ICMP: {(3, 4)}, _ICMP6: {(2, 0)}}
_NOBODY = "nobody on the link has that address: no answer to ARP or neighbour discovery"

Extra = list[tuple[int, int, bytes]]


def tell_send_error(error: OSError) -> Refusal:
    """Why this node's own kernel does not let a datagram out."""
    text = os.strerror(error.errno or 0)
    if error.errno == errno.EMSGSIZE:
        return Refusal("size", text)
    if error.errno in (errno.EPERM, errno.EACCES):
        return Refusal("forbidden", "this node's own firewall does not let it out")
    return Refusal("unreachable", f"on this node: {text}")


def read_failure(extra: Extra, own: str, target: str) -> Refusal | None:
    """What a message of the error queue says (ip(7), IP_RECVERR); None where it says nothing.

    own, target: the addresses that the datagram went from and to.
    """
    for level, kind, data in extra:
        if (level, kind) in _RECVERR and len(data) >= _ERROR.size:
            return _read(data, own, target)
    return None


def _read(data: bytes, own: str, target: str) -> Refusal:
    code, origin, kind, subkind, info, _data = _ERROR.unpack_from(data)
    text = os.strerror(code)
    by = _read_offender(data[_ERROR.size :])
    said = (kind, subkind)
    if origin == _LOCAL:
        size = code == errno.EMSGSIZE
        return Refusal("size", text, mtu=info) if size else Refusal("unreachable", text)
    if said in _SIZE.get(origin, ()):
        return Refusal("size", text, by, info)
    if said in _PORT.get(origin, ()) and by == target:
        return Refusal("port", text, by)
    if said in _PORT.get(origin, set()) | _FORBIDDEN.get(origin, set()):
        return Refusal("forbidden", "a firewall does not let it through", by)
    if by == own:
        return Refusal("unreachable", _NOBODY)
    return Refusal("unreachable", text.lower(), by)


def _read_offender(data: bytes) -> str:
    if len(data) < 2:
        return ""
    family = struct.unpack_from("=H", data)[0]
    if family == socket.AF_INET and len(data) >= 8:
        return str(ip_address(data[4:8]))
    if family == socket.AF_INET6 and len(data) >= 24:
        return str(ip_address(data[8:24]))
    return ""
