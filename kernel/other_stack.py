"""Pods whose link is another network stack's, as gVisor's are: the kernel has no address there.

runsc takes all addresses off the link, and the routes with them, and sends and receives by packet
sockets (gvisor, runsc/sandbox/network.go). The kernel would answer for an address that came back,
and reset the pod's connections.
"""

from __future__ import annotations

from dataclasses import replace

from kernel.model import Space

_ALL_PROTOCOLS = "0003"  # ETH_P_ALL (linux/if_ether.h)
_PROTOCOL, _LINK = 3, 4  # fields of a line (net/packet/af_packet.c, packet_seq_show)


def kernels_share(desired: Space, observed: Space) -> Space:
    """What the kernel is to have of a pod's share; the calling thread is in the pod's namespace."""
    missing = {a.address for a in desired.addresses} - {a.address for a in observed.addresses}
    if not missing:
        return desired
    name = desired.addresses[0].link
    index = next((link.index for link in observed.links if link.name == name), 0)
    if not _is_read(index):
        return desired
    return replace(desired, addresses=(), routes=(), neighbours=())


def _is_read(index: int) -> bool:
    """Whether a packet socket takes all packets of the link."""
    try:
        with open("/proc/thread-self/net/packet", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:  # a kernel without packet sockets
        return False
    return any(row[_PROTOCOL] == _ALL_PROTOCOLS and row[_LINK] == str(index) for row in rows)
