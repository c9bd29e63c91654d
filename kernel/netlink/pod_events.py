"""Which namespaces of pods have changed: notifications of all of them, by one socket of the node.

A namespace has a number here (NETNSA_NSID) while the node has the other end of one of its links. A
socket in each of them would do, too, but would keep the namespaces of pods that are gone.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from kernel.errors import KernelError
from kernel.netlink.monitor import LISTEN_ALL_NSID, SOL_NETLINK, subscribe
from kernel.netlink.socket import NETLINK_ROUTE

# linux/rtnetlink.h: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE.
_GROUPS = sum(1 << (group - 1) for group in (1, 5, 7, 9, 11))
_BUFFER_BYTES = 1 << 20
_HEADER = struct.Struct("=12xI")  # struct nlmsghdr
_CONTROL_BYTES = socket.CMSG_SPACE(4)
_AT_ONCE = 2000
"""Notifications that are read at once; of more it is not known whose they are."""


@dataclass(frozen=True, slots=True)
class ChangedPods:
    """authors: by the number of a namespace, the netlink port that made its last change, 0 for the
    kernel. any: also others may have changed.

    A port is normally the process ID of its owner, as that one's namespace of process IDs has it.
    """

    authors: Mapping[int, int] = field(default_factory=dict)
    any: bool = False


class PodEvents:
    """Read now and then: nobody is woken by what pods do in their namespaces."""

    def __init__(self) -> None:
        """Raises KernelError, with EPERM without CAP_NET_BROADCAST."""
        self._socket = subscribe(NETLINK_ROUTE, _GROUPS, _BUFFER_BYTES, of_pods=True)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self) -> ChangedPods:
        """What has changed since the last call; does not wait."""
        authors, lost = dict[int, int](), False
        for _ in range(_AT_ONCE):
            try:
                # Whose it is matters alone: all but the first header is cut off.
                head, control, _flags, _sender = self._socket.recvmsg(_HEADER.size, _CONTROL_BYTES)
            except BlockingIOError:
                return ChangedPods(authors, lost)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError("read", "events of pods", error.errno or 0) from error
                lost = True
                continue
            # One of the node's own namespace has no number.
            for level, kind, value in control:
                if (level, kind) == (SOL_NETLINK, LISTEN_ALL_NSID):
                    number, port = struct.unpack("=i", value)[0], _HEADER.unpack(head)[0]
                    # What follows a change, as routes follow their address, is the kernel's.
                    authors[number] = port or authors.get(number, 0)
        return ChangedPods(authors, any=True)
