"""STATUS (SPEC section 2 "STATUS"), since 1.1.0."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .netconf import with_ipam, with_pool
from .network import Network
from .spec import INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT

needs_status = pytest.mark.cni_needs("STATUS")


def test_status_before_it_existed(net: Network, version_without_gc: str) -> None:
    """1.1.0 introduced STATUS: for earlier configurations it is an error, 1 or 4."""
    with net.unchanged():
        reply = net.status(net.conf(version_without_gc))
    reply.error(INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT)


@needs_status
def test_status_of_a_ready_plugin(net: Network) -> None:
    """Section 2, STATUS: zero "if the plugin is ready to service ADD requests" (MUST)."""
    with net.unchanged():
        net.status().silent()
    assert net.attach().addresses()


@needs_status
def test_status_with_attachments(net: Network) -> None:
    """Section 2, STATUS: purely informational; attachments stay as they are."""
    attachment = net.attach()
    with net.unchanged(attachment.pod):
        net.status().silent()


@needs_status
def test_status_without_path(net: Network) -> None:
    """Section 2, STATUS: CNI_PATH is optional; where a delegated IPAM needs it, a clean error."""
    request = replace(net.request("STATUS", None, net.conf()), path=None)
    failed = net.run(request).failed()
    assert not failed or net.body.get("ipam", {}).get("type"), "CNI_PATH is not needed"


@needs_status
@pytest.mark.cni_needs("ipam")
def test_status_without_the_delegated_plugin(net: Network) -> None:
    """Section 2, STATUS: it knows that it cannot service an ADD (MUST)."""
    conf = with_ipam(net.conf(), "conformance-missing")
    net.add(net.pod(), conf=conf).error()
    net.status(conf).error()


@needs_status
@pytest.mark.cni_needs("ranges")
def test_status_without_an_address_left(net: Network) -> None:
    """Section 2, STATUS: error "if those resources are exhausted" (SHOULD), 50 or 51."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    net.status(conf).silent()
    attachment = net.attach(conf=conf)
    net.status(conf).error(50, 51)
    net.delete(attachment).silent()
    net.status(conf).silent()


@needs_status
@pytest.mark.cni_needs("ranges")
def test_add_and_delete_despite_status(net: Network) -> None:
    """Section 2, STATUS: it "does not prevent other runtime requests"."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    attachment = net.attach(conf=conf)
    net.status(conf).failed()
    net.check(attachment).silent()
    net.delete(attachment).silent()
    assert net.attach(conf=conf).addresses()
