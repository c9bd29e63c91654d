"""GC (SPEC section 2 "GC", section 3 "Garbage-collecting a network"), since 1.1.0."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .netconf import second_network, with_pool
from .network import IFNAME, Network
from .spec import INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT

needs_gc = pytest.mark.cni_needs("GC")
MALFORMED: dict[str, object] = {
    "string": "x",
    "number": 5,
    "object": {"containerID": "x"},
    "strings": ["x"],
    "numbers": [5],
    "number-as-id": [{"containerID": 5, "ifname": "eth0"}],
}
POOL = ("10.89.0.10", "10.89.0.11")


def test_gc_before_it_existed(net: Network, version_without_gc: str) -> None:
    """1.1.0 introduced GC: for earlier configurations it is an error, 1 or 4."""
    attachment = net.attach(conf=net.conf(version_without_gc))
    with net.unchanged(attachment.pod):
        reply = net.collect(conf=net.conf(version_without_gc))
    reply.error(INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT)


@needs_gc
def test_gc_succeeds(net: Network) -> None:
    """Section 2, GC: "No output on success", before any ADD too."""
    with net.unchanged():
        net.collect().silent()


@needs_gc
def test_gc_keeps_what_is_listed(net: Network) -> None:
    """Section 2, GC: `cni.dev/valid-attachments` are still valid; again and again."""
    first, second = net.attach(), net.attach(ifname="eth1")
    with net.unchanged(first.pod, second.pod):
        net.collect(first, second).silent()
        net.collect(first, second).silent()
    net.check(first).silent()
    net.check(second).silent()


@needs_gc
@pytest.mark.cni_needs("ranges")
def test_gc_removes_what_is_not_listed(net: Network) -> None:
    """Section 2, GC: IPAM reservations not in the list are released (SHOULD)."""
    conf = with_pool(net.conf(), *POOL)
    kept, lost = net.attach(conf=conf), net.attach(conf=conf)
    freed = lost.addresses()
    lost.pod.space.remove()
    net.collect(kept, conf=conf).silent()
    net.check(kept).silent()
    assert net.attach(conf=conf).addresses() == freed
    net.add(net.pod(), conf=conf).error()


@needs_gc
@pytest.mark.cni_needs("ranges")
def test_gc_with_an_empty_list(net: Network) -> None:
    """Section 2, GC: nothing is valid, everything is released (SHOULD)."""
    conf = with_pool(net.conf(), *POOL)
    for attachment in [net.attach(conf=conf) for _ in POOL]:
        attachment.pod.space.remove()
    net.collect(conf=conf).silent()
    net.collect(conf=conf).silent()
    assert [net.attach(conf=conf).addresses() for _ in POOL]


@needs_gc
@pytest.mark.cni_needs("ranges")
def test_gc_tells_interface_names_apart(net: Network) -> None:
    """Section 2, GC: the list has containerID and ifname; one of a container's two stays."""
    conf = with_pool(net.conf(), *POOL)
    kept = net.attach(ifname="eth0", conf=conf)
    lost = net.attach(kept.pod, ifname="eth1", conf=conf)
    freed = lost.addresses()
    net.collect(kept, conf=conf).silent()
    net.check(kept).silent()
    assert net.attach(conf=conf).addresses() == freed


@needs_gc
@pytest.mark.cni_needs("ranges", "derived")
def test_gc_stays_in_its_network(net: Network) -> None:
    """Section 2, GC: "attachments to this network"."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    kept = net.attach(conf=conf)
    net.collect(conf=second_network(net.conf())).silent()
    net.check(kept).silent()
    net.add(net.pod(), conf=conf).error()


@needs_gc
def test_delete_after_gc(net: Network) -> None:
    """Section 2, DEL: idempotent, and "GC [is not] a substitute for DEL"."""
    attachment = net.attach()
    attachment.pod.space.remove()
    net.collect().silent()
    net.delete(attachment).silent()


@needs_gc
def test_gc_ignores_attachment_parameters(net: Network) -> None:
    """Section 3: "there are no Attachment Parameters" in GC; stray ones do no harm."""
    attachment = net.attach()
    kept = [{"containerID": attachment.pod.container_id, "ifname": IFNAME}]
    conf = {**net.conf(), "cni.dev/valid-attachments": kept}
    request = replace(net.request("GC", attachment.pod, conf), netns="/nonexistent")
    with net.unchanged(attachment.pod):
        net.run(request).silent()


@needs_gc
@pytest.mark.parametrize("case", MALFORMED)
def test_gc_with_a_malformed_list(net: Network, case: str) -> None:
    """Section 2, GC: "array of objects"; with anything else nothing may be removed."""
    attachment = net.attach()
    conf = {**net.conf(), "cni.dev/valid-attachments": MALFORMED[case]}
    with net.unchanged(attachment.pod):
        net.run(net.request("GC", None, conf)).error()
    net.check(attachment).silent()
