"""Lets a frame come in by a link, as if it had been received from the wire.

The kernel passes a frame to an XDP program on its own, for tests of such programs; what the program
passes on goes up the stack as the link's (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18;
net/bpf/test_run.c, xdp_test_run_batch). Nothing is attached to the link, and nothing stays.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from kernel.errors import KernelError

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""bpf(2) by machine (asm/unistd.h)."""
# linux/bpf.h
_LOAD, _TEST_RUN = 5, 10
_XDP, _LIVE_FRAMES = 6, 2
_PASS = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""r0 = XDP_PASS; exit."""
FRAME_MAX = 3000
"""Bytes of a frame, which must fit into a page beside what the kernel keeps there."""


def inject(link: str, index: int, frame: bytes) -> None:
    """Let it come in by the link of the calling thread's namespace. Raises KernelError."""
    try:
        program = load_passing()
        try:
            _run(program, index, frame)
        finally:
            os.close(program)
    except OSError as error:
        raise KernelError("pass a frame to link", link, error.errno or 0) from error


def load_passing() -> int:
    """The descriptor of an XDP program that passes all frames on. Raises OSError."""
    code = ctypes.create_string_buffer(_PASS, len(_PASS))
    licence = ctypes.create_string_buffer(b"GPL")
    return _bpf(
        _LOAD,
        struct.pack("=II", _XDP, len(_PASS) // 8)
        + struct.pack("=QQ", ctypes.addressof(code), ctypes.addressof(licence)),
    )


def _run(program: int, index: int, frame: bytes) -> None:
    data = ctypes.create_string_buffer(frame, len(frame))
    # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    context = struct.pack("=6I", 0, len(frame), 0, index, 0, 0)
    given = ctypes.create_string_buffer(context, len(context))
    argument = struct.pack("=4I", program, 0, len(frame), 0)
    argument += struct.pack("=QQII", ctypes.addressof(data), 0, 1, 0)
    argument += struct.pack("=IIQQ", len(context), 0, ctypes.addressof(given), 0)
    # flags, cpu, batch_size, and what fills the structure up
    _bpf(_TEST_RUN, argument + struct.pack("=4I", _LIVE_FRAMES, 0, 1, 0))


def _bpf(command: int, argument: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "bpf")
    libc = ctypes.CDLL(None, use_errno=True)
    given = ctypes.create_string_buffer(argument, len(argument))
    found = libc.syscall(number, command, given, len(argument))
    if found < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return int(found)
