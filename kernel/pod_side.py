"""The pod's side of an attachment: entered only where the kernel says that it is that pod's."""

from __future__ import annotations

import struct
from dataclasses import replace

from kernel.diff import Change, Noun, diff_space
from kernel.errors import KernelError, NotANamespace
from kernel.model import Link, Route, Space
from kernel.netlink import links
from kernel.netlink.codec import Message, attributes, u32
from kernel.netlink.socket import POD_OBJECTS_MAX, Answer, Netlink
from kernel.netns import Namespace, inside, open_namespace
from kernel.other_stack import kernels_share
from kernel.read import read_space
from kernel.repair import repair

# linux/net_namespace.h: the number that one namespace has for another.
_RTM_GETNSID, _NETNSA_NSID, _NETNSA_FD = 90, 1, 3
_RTGENMSG_BYTES = 4  # the family, padded

Changes = tuple[Change[Noun], ...]


def open_pod(nl: Netlink, path: str, host: str) -> Namespace | None:
    """The namespace at the path, if the other end of the node's link is in it; else None.

    The path is what a runtime once named: it may be another pod's by now.
    """
    try:
        pod = open_namespace(path)
    except NotANamespace:
        return None
    if _is_peer_of(nl, pod, host):
        return pod
    pod.__exit__()
    return None


def _is_peer_of(nl: Netlink, pod: Namespace, host: str) -> bool:
    number, link = nl.exchange([_get_number(pod), links.get_link(host)])
    mine = _parse_number(number)
    return mine >= 0 and bool(link.objects) and mine == links.parse_peer_namespace(link.objects[0])


def read_number(nl: Netlink, pod: Namespace) -> int:
    """The number that the socket's namespace has for another; -1 where it has none.

    Links name the namespace of their other end by it.
    """
    return _parse_number(nl.exchange([_get_number(pod)])[0])


def _get_number(pod: Namespace) -> Message:
    return Message(_RTM_GETNSID, 0, bytes(_RTGENMSG_BYTES) + u32(_NETNSA_FD, pod.fd))


def _parse_number(answer: Answer) -> int:
    if not answer.objects:
        return -1
    found = attributes(answer.objects[0].body, _RTGENMSG_BYTES).get(_NETNSA_NSID, b"")
    return int(struct.unpack("=i", found)[0]) if found else -1


def repair_pod(pod: Namespace, desired: Space) -> tuple[Changes, Changes]:
    """Bring back what the pod lacks of the plan; that, and what it lacks still.

    Only what is missing: another route to a destination, another MAC or MTU may be the pod's own
    choice. Raises KernelError, TooManyObjects where the pod has made more than is compared.
    """
    with inside(pod), Netlink(dump_max=POD_OBJECTS_MAX) as nl:
        lost, index = _find_lost(nl, desired)
        if not lost:
            return (), ()
        repair(nl, lost, index)
        return lost, _find_lost(nl, desired)[0]


def compare_pod(pod: Namespace, desired: Space) -> Changes:
    """What the pod has otherwise than planned; nothing is changed.

    Raises KernelError, TooManyObjects.
    """
    with inside(pod), Netlink(dump_max=POD_OBJECTS_MAX) as nl:
        observed = read_space(nl, desired)
        return diff_space(kernels_share(desired, observed), observed)


def _find_lost(nl: Netlink, desired: Space) -> tuple[Changes, int]:
    """What is missing, and the index of the pod's link."""
    observed = read_space(nl, desired)
    name = desired.links[0].name
    index = next((link.index for link in observed.links if link.name == name), 0)
    if not index:
        raise KernelError("find link", name, 0, f"the pod has renamed or removed {name}")
    plain = tuple(Link(k.name, k.kind, up=k.up) for k in desired.links)
    found = diff_space(replace(kernels_share(desired, observed), links=plain), observed)
    return tuple(c for c in found if not (isinstance(c.noun, Route) and c.observed)), index
