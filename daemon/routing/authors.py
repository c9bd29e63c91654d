"""Whose thread a netlink event names."""

from __future__ import annotations

import os
import re
import time
from functools import lru_cache
from pathlib import Path

_GROUP = re.compile(r"^Tgid:\s*(\d+)$.*?^PPid:\s*(\d+)$", re.MULTILINE | re.DOTALL)


def is_own(port: int) -> bool:
    """Whether it is a thread of this process, or of one that it forked (`cni_server.processes`).

    Of nftables the kernel tells the thread (net/netfilter/nf_tables_api.c, nf_tables_fill_gen_info,
    task_pid_nr). One that has ended meanwhile counts as another's.
    """
    # Many events come from one author; a second later its number may be another's.
    return _is_own(port, os.getpid(), int(time.monotonic()))


@lru_cache(maxsize=64)
def _is_own(port: int, process: int, _second: int) -> bool:
    try:
        found = _GROUP.search(Path(f"/proc/{port}/status").read_text())
    except (OSError, UnicodeDecodeError):
        return False
    return found is not None and process in map(int, found.groups())
