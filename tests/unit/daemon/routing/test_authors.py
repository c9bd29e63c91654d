"""Who made a change: the kernel, a process, or the daemon itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from daemon.routing.authors import (
    authored_part,
    describe_event,
    is_by_kernel,
    is_own,
    name_author,
)
from kernel.model import Link
from kernel.netlink.monitor import Event
from tests import ROOT
from tests.unit.daemon.routing.test_peer_routes import peer_entries


def test_threads_and_children_are_own() -> None:
    assert is_own(os.getpid())
    assert is_own(threading.get_native_id())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert is_own(child.pid)
        child.communicate()
    assert not is_own(1)


def test_in_a_container_nobody_is() -> None:
    """The kernel's numbers are the host's: there, the daemon's own may be another's."""
    code = "import os; from daemon.routing.authors import is_own; print(is_own(os.getpid()))"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"False\n"


def test_the_kernel_and_processes_are_named() -> None:
    assert name_author(0) == "the kernel"
    assert name_author(1).startswith("pid 1 (")
    assert name_author((1 << 22) + 1) == f"a process (netlink port {(1 << 22) + 1})"
    assert name_author(1 << 22) == f"pid {1 << 22}"  # no such process


def test_in_a_container_no_process_is_named_for_another_one() -> None:
    code = "from daemon.routing.authors import name_author; print(name_author(1))"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "pid 1\n"


def test_no_author_is_named_where_the_kernel_names_none() -> None:
    """The kernel leaves out who removed a link; it did not do so itself."""
    fdb, neighbour, _route = peer_entries(2, 0)
    unsigned = Event("link", True, Link("vx"), 0)
    assert describe_event("removed", unsigned) == "removed"
    assert describe_event("removed", Event("fdb", True, fdb, 0)) == "removed"
    assert (
        describe_event("removed", Event("neighbour", True, neighbour, 0)) == "removed by the kernel"
    )
    echoed = Event("link", True, Link("vx"), 1 << 23)
    assert describe_event("removed", echoed) == f"removed by a process (netlink port {1 << 23})"


@pytest.mark.parametrize(
    ("cause", "author", "kernels"),
    [
        ("removed by pid 4711 (ip)", "removed by pid 4711 (ip)", False),
        ("removed by pid 4711 (a by b), 3 times now", "removed by pid 4711 (a by b)", False),
        ("changed by a process (netlink port 5000000)",) * 2 + (False,),
        ("removed by the kernel",) * 2 + (True,),
        ("removed by the kernel, 12 times now", "removed by the kernel", True),
        ("changed in the pod by the kernel",) * 2 + (True,),
        ("changed in the pod by pid 7",) * 2 + (False,),
        ("removed", "", False),
        ("refused by the kernel: no memory", "", False),
    ],
)
def test_the_author_is_read_from_a_cause(cause: str, author: str, kernels: bool) -> None:
    assert authored_part(cause) == author
    assert is_by_kernel(cause) is kernels
