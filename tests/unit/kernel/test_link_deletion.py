"""Gathered deletions: nobody is told that a link is gone that is there."""

from __future__ import annotations

import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.errors import KernelError
from kernel.link_deletion import LinkRemover
from kernel.netlink import routes
from kernel.netlink.socket import Netlink
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
            seen.append(remover.remove([TOO_LONG]))
        except struct.error as error:
            seen.append(type(error))

    with elsewhere():
        subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "other"], check=True)
        at_once(lambda: remover.remove(["one"]), *[gathered] * 8)
    assert seen == [struct.error] * 8


def test_what_is_said_to_be_gone_is_gone_with_all_it_had() -> None:
    """Two removers share the group, as two processes do."""
    left, names = list[str](), [f"gone{n}" for n in range(60)]
    removers = LinkRemover(), LinkRemover()
    first = threading.Barrier(len(names))

    def remove(number: int, name: str) -> None:
        first.wait()
        assert removers[number % 2].remove([name])
        left.extend(remains(number, name))

    with elsewhere():
        batch = "".join(
            f"link add {name} type veth peer p{name}\nlink set {name} up\nlink set p{name} up\n"
            f"addr add 10.9.0.1/32 dev {name}\nroute add 10.9.1.{n}/32 dev {name}\n"
            for n, name in enumerate(names)
        )
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        at_once(*[lambda n=n, name=name: remove(n, name) for n, name in enumerate(names)])
        assert [name for _index, name in socket.if_nameindex()] == ["lo"]
    assert left == []


def remains(number: int, name: str) -> list[str]:
    """What is still there of a pair of links, of its addresses and routes."""
    found = [what for _index, what in socket.if_nameindex() if what in (name, f"p{name}")]
    settings = Path("/proc/sys/net/ipv4/conf", name)
    with Netlink() as nl:
        found_routes = [routes.parse_route(message) for message in nl.dump(routes.list_routes(4))]
    to = [str(route.dst) for each in found_routes for _index, route in each]
    found += [dst for dst in to if dst == f"10.9.1.{number}/32"]
    return found + [str(settings)] * settings.exists()


def test_what_was_never_there_takes_nobodys_turn() -> None:
    remover = LinkRemover()
    with elsewhere():
        assert [remover.remove(["nothing"]) for _ in range(20)] == [False] * 20
        subprocess.run(["ip", "link", "add", "one", "type", "veth", "peer", "other"], check=True)
        assert remover.remove(["one"])
        assert not remover.remove(["other"])


def test_a_shortage_of_descriptors_passes() -> None:
    """As many deletions fail as may be in flight, and a later one does not wait for them."""
    remover, limits = LinkRemover(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with elsewhere():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for _ in range(4):
                with pytest.raises(KernelError):
                    remover.remove(["lo"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        late = threading.Thread(target=remover.remove, args=(["none"],), daemon=True)
        late.start()
        late.join(30)
    assert not late.is_alive()
