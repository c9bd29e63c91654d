"""A pod's network namespace, entered only where the kernel says that it is that pod's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from ctl.attachments import Attachment
from daemon.options import Unusable
from kernel.errors import KernelError, NotANamespace
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace, open_namespace
from kernel.pod_side import read_number

_PROC = "/proc"


def open_pod_namespace(nl: Netlink, attachment: Attachment) -> Namespace:
    """The namespace of the pod's end. Raises Unusable, KernelError.

    By the path that the runtime named, which may be another pod's by now, or not be there in a
    container; else by a process of the pod's.
    """
    if attachment.end is None:
        why = f"link {attachment.host or 'of it'} is gone from the node: recreate the pod"
        raise Unusable(f"the network namespace of {attachment.title} cannot be found: {why}")
    for path in (attachment.netns, *_paths()) if attachment.netns else _paths():
        found = _open_if(nl, path, attachment.end.namespace)
        if found is not None:
            return found
    raise Unusable(
        f"the network namespace of {attachment.title} is not seen from here:"
        f" {attachment.netns or 'its path is not known'}, and no process of it; run podwirectl on"
        " the node itself"
    )


def _open_if(nl: Netlink, path: str, number: int) -> Namespace | None:
    """The namespace at a path, if it has that number for the socket's."""
    try:
        found = open_namespace(path)
    except NotANamespace:  # the process has ended
        return None
    if number >= 0 and read_number(nl, found) == number:
        return found
    found.__exit__()
    return None


def _paths() -> Iterator[str]:
    """Each namespace that any process is in, once, while its process is likely still there."""
    seen = set[int]()
    for process, status in _processes():
        if status.st_ino not in seen:
            seen.add(status.st_ino)
            yield f"{_PROC}/{process}/ns/net"


def find_processes(namespace: Namespace) -> list[int]:
    """The processes in the namespace, by ID."""
    wanted = os.fstat(namespace.fd)
    return sorted(p for p, status in _processes() if os.path.samestat(status, wanted))


def _processes() -> Iterator[tuple[int, os.stat_result]]:
    """All processes, each with its network namespace."""
    for entry in filter(str.isdigit, os.listdir(_PROC)):
        with suppress(OSError):  # it has ended
            yield int(entry), os.stat(f"{_PROC}/{entry}/ns/net")


def namespace_number(path: str) -> int | None:
    """The inode of the network namespace at a path, as in net:[4026532000]; None: none there."""
    try:
        with open_namespace(path) as namespace:
            return os.fstat(namespace.fd).st_ino
    except KernelError:
        return None
