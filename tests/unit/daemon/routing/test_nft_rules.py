"""Whose changes of nftables are the daemon's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from daemon.routing.nft_rules import is_own


def test_threads_and_children_are_own() -> None:
    assert is_own(os.getpid())
    assert is_own(threading.get_native_id())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert is_own(child.pid)
        child.communicate()
    assert not is_own(1)


def test_in_a_container_nobody_is() -> None:
    """The kernel's numbers are the host's: there, the daemon's own may be another's."""
    code = "import os; from daemon.routing.nft_rules import is_own; print(is_own(os.getpid()))"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"False\n"
