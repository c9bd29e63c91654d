"""Driver and checksum offload of a link, through the ethtool ioctl (linux/ethtool.h).

A packet that leaves through a VXLAN device carries two checksums. The inner one is left to whatever
is below (CHECKSUM_PARTIAL), and that has failed in the field in three cases, each seen as
receivers that drop everything but ICMP:
- kernels before 5.7 spoil it where the encapsulated packet is translated too, as kube-proxy's mark
  made happen ("netfilter: nat: never update the UDP checksum when it's 0");
- later ones do so still where the outer UDP checksum is not zero: podwire's is (see `vxlan.py`);
- some adapters claim to handle tunnels and do not: VMware's vmxnet3 on UDP ports that its host
  does not expect.
Turned off, the VXLAN device computes the inner checksum before it encapsulates, which is always
right and costs throughput. `auto` does so only for the first and the last of these.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from typing import Literal

from kernel.errors import KernelError

Offload = Literal["auto", "on", "off"]

_SIOCETHTOOL = 0x8946
_GDRVINFO, _GTXCSUM, _STXCSUM = 0x03, 0x16, 0x17
_DRVINFO_BYTES, _DRIVER_BYTES = 196, 32
# NAT corrupts inner checksums before this release.
_FIRST_SOUND_RELEASE = (5, 7)
BROKEN_DRIVERS = frozenset({"vmxnet3"})


def _ioctl(name: str, data: array.array[int], operation: str) -> None:
    # struct ifreq: the name, then a pointer to the request.
    address, _length = data.buffer_info()
    request = struct.pack("16sP16x", name.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        try:
            fcntl.ioctl(link, _SIOCETHTOOL, request)
        except OSError as error:
            raise KernelError(operation, name, error.errno or 0) from error


def read_driver(name: str) -> str:
    """The driver of a link ("vmxnet3", "veth"); "" where it has none. Raises KernelError."""
    data = array.array("B", struct.pack("=I", _GDRVINFO) + bytes(_DRVINFO_BYTES - 4))
    try:
        _ioctl(name, data, "read the driver of")
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ""
        raise
    return data.tobytes()[4 : 4 + _DRIVER_BYTES].split(b"\0")[0].decode(errors="replace")


def read_tx_checksum(name: str) -> bool:
    """Whether a link leaves checksums of what it sends to what is below it. Raises KernelError."""
    data = array.array("I", (_GTXCSUM, 0))
    _ioctl(name, data, "read the checksum offload of")
    return bool(data[1])


def set_tx_checksum(name: str, enabled: bool) -> None:
    """Turn a link's checksum offload for sent packets on or off. Raises KernelError."""
    data = array.array("I", (_STXCSUM, int(enabled)))
    _ioctl(name, data, f"turn {'on' if enabled else 'off'} the checksum offload of")


def offload_trouble(uplinks: Iterable[str], release: str = "") -> str:
    """Why checksum offload cannot be trusted on a VXLAN device; "" where nothing speaks against it.

    uplinks: what encapsulated packets leave through, with the ports of a bridge or a bond.
    release: as in uname, for another kernel than the running one.
    """
    release = release or os.uname().release
    if _version(release) < _FIRST_SOUND_RELEASE:
        return f"kernel {release} corrupts checksums of translated packets, as all before 5.7"
    for name in uplinks:
        driver = read_driver(name)
        if driver in BROKEN_DRIVERS:
            return f"driver {driver} of {name} corrupts checksums inside tunnels"
    return ""


def _version(release: str) -> tuple[int, int]:
    numbers = release.replace("-", ".").split(".")[:2]
    return tuple(int(n) if n.isdigit() else 0 for n in (*numbers, "0")[:2])  # type: ignore[return-value]


def ensure_offload(device: str, mode: Offload, trouble: str) -> bool | None:
    """Bring a VXLAN device's checksum offload to the mode; what it was, None where it fits.

    auto: off where there is trouble (see `offload_trouble`). Raises KernelError.
    """
    desired = mode == "on" or (mode == "auto" and not trouble)
    observed = read_tx_checksum(device)
    if observed == desired:
        return None
    set_tx_checksum(device, desired)
    # The request succeeds also where another feature keeps the kernel from it
    # (net/ethtool/ioctl.c, ethtool_set_one_feature).
    if read_tx_checksum(device) != desired:
        raise KernelError(f"turn {'on' if desired else 'off'} the checksum offload of", device)
    return observed
