"""What an attachment is for (SPEC "Overview", section 2 "Overview")."""

from __future__ import annotations

import pytest

from .netconf import dual_stack
from .network import Attachment, Network, Pod
from .traffic import reaches


def bare_addresses(attachment: Attachment) -> list[str]:
    return sorted(address.partition("/")[0] for address in attachment.addresses())


def test_pods_reach_each_other(net: Network) -> None:
    """Overview: endpoints of a network "can communicate amongst each other"; at once."""
    first, second = net.attach(), net.attach()
    for here, there in ((first, second), (second, first)):
        for address in bare_addresses(there):
            assert reaches(here.pod.space, there.pod.space, address), address


@pytest.mark.cni_needs("derived")
def test_pods_reach_each_other_in_both_families(net: Network) -> None:
    """Section 2, Overview: "ensure it has connectivity", when ADD returns."""
    conf = dual_stack(net.conf())
    first, second = net.attach(conf=conf), net.attach(conf=conf)
    assert len(bare_addresses(second)) == 2
    for address in bare_addresses(second):
        assert reaches(first.pod.space, second.pod.space, address), address


def test_pod_reaches_others_after_a_delete(net: Network) -> None:
    """Section 3, Lifecycle: the DEL of one container leaves the others connected."""
    first, second, third = net.attach(), net.attach(), net.attach()
    net.delete(third).silent()
    for address in bare_addresses(second):
        assert reaches(first.pod.space, second.pod.space, address), address


def test_two_attachments_reach_a_third(net: Network, pod: Pod) -> None:
    """Section 2, ADD: a second interface of a pod does not cut off the first."""
    net.attach(pod, "eth0")
    net.attach(pod, "eth1")
    other = net.attach()
    for address in bare_addresses(other):
        assert reaches(pod.space, other.pod.space, address), address
