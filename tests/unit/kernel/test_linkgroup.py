"""Gathered deletions: nobody is told that a link is gone that is there."""

from __future__ import annotations

import struct
import subprocess
import threading
import time
from collections.abc import Callable

from kernel.linkgroup import LinkRemover
from tests.unit.cni_plugin.namespaces import elsewhere

TOO_LONG = "x" * (1 << 16)
"""A name that fits into no attribute (linux/netlink.h, nla_len): it never gets to the kernel."""
HEAD_START = 0.004
"""Seconds; the kernel takes several times as long to delete a pair of links."""


def at_once(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_whatever_goes_wrong_is_every_callers_error() -> None:
    """One that is no KernelError must not pass for success with those who were gathered."""
    remover, seen = LinkRemover(), list[object]()

    def gathered() -> None:
        time.sleep(HEAD_START)
        try:
            seen.append(remover.remove(TOO_LONG))
        except struct.error as error:
            seen.append(type(error))

    with elsewhere():
        subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "other"], check=True)
        at_once(lambda: remover.remove("one"), *[gathered] * 8)
    assert seen == [struct.error] * 8
