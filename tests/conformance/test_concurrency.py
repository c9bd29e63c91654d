"""Calls at the same time (SPEC section 3 "Lifecycle & Ordering")."""

from __future__ import annotations

from dataclasses import replace

import pytest

from . import shapes
from .netconf import with_pool
from .network import IFNAME, Network

MANY = 16


def test_adds_and_deletes_at_once(net: Network) -> None:
    """Section 3, Lifecycle: "Plugins must handle being executed concurrently"."""
    net.attach()  # so that what all pods share exists
    pods = [net.pod() for _ in range(MANY)]
    with net.unchanged(*pods, ignore=("lo",)):
        adds = [net.request("ADD", pod, net.conf()) for pod in pods]
        results = [reply.result() for reply in net.run_together(adds)]
        addresses = [address for result in results for address in shapes.addresses(result)]
        assert len(set(addresses)) == len(addresses) == MANY, addresses
        assert {a for pod in pods for a in pod.space.addresses(IFNAME)} == set(addresses)
        for reply in net.run_together([replace(add, command="DEL") for add in adds]):
            reply.silent()


def test_first_adds_at_once(net: Network) -> None:
    """Section 3, Lifecycle: what all pods share is made by several at the same time."""
    pods = [net.pod() for _ in range(8)]
    for reply in net.run_together([net.request("ADD", pod, net.conf()) for pod in pods]):
        assert shapes.addresses(reply.result())


@pytest.mark.cni_needs("ranges")
def test_more_adds_than_addresses(net: Network) -> None:
    """Section 3, Lifecycle: as many succeed as there are addresses, the rest fail cleanly."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.13")
    requests = [net.request("ADD", net.pod(), conf) for _ in range(8)]
    outcomes = [reply.failed() for reply in net.run_together(requests)]
    assert outcomes.count(False) == 4, outcomes


def test_adds_beside_deletes(net: Network) -> None:
    """Section 3, Lifecycle: DEL of some containers beside ADD of others."""
    old = [net.attach() for _ in range(6)]
    new = [net.pod() for _ in range(6)]
    requests = [replace(a.request, command="DEL") for a in old]
    requests += [net.request("ADD", pod, net.conf()) for pod in new]
    for reply in net.run_together(requests):
        reply.ok()
    assert all(pod.space.addresses(IFNAME) for pod in new)
    assert all(a.pod.space.link_names() == {"lo"} for a in old)
