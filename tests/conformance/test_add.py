"""ADD (SPEC section 2 "ADD", section 3 "Adding an attachment")."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .netconf import second_network, with_pool
from .network import IFNAME, Network, Pod, encode
from .traffic import process_in


def test_add_creates_the_interface(net: Network, pod: Pod, version: str) -> None:
    """Section 2, ADD: "create the interface defined by CNI_IFNAME" there, and no other."""
    net.attach(pod, conf=net.conf(version))
    assert pod.space.link_names() == {"lo", IFNAME}
    link = pod.space.link(IFNAME)
    assert link is not None
    assert "UP" in link["flags"], link


def test_add_where_the_name_is_taken(net: Network, pod: Pod) -> None:
    """Section 2, ADD: "If an interface of the requested name already exists": MUST fail."""
    net.attach()  # so that what all pods share exists
    pod.space.ip("link", "add", IFNAME, "type", "veth", "peer", "name", "other")
    with net.unchanged(pod):
        net.add(pod).error()


def test_add_twice(net: Network, pod: Pod) -> None:
    """Section 2, ADD: the second MUST fail, and the first attachment stays whole."""
    first = net.attach(pod)
    with net.unchanged(pod):
        net.add(pod).error()
    assert first.addresses()


@pytest.mark.cni_needs("CHECK")
def test_add_twice_then_check(net: Network, pod: Pod) -> None:
    """Section 2, ADD and CHECK: the failed second ADD took nothing from the first."""
    first = net.attach(pod)
    net.add(pod).error()
    net.check(first).silent()


def test_add_with_two_interface_names(net: Network, pod: Pod) -> None:
    """Section 3: (CNI_CONTAINERID, CNI_IFNAME) identifies an attachment; two are two."""
    first, second = net.attach(pod, "eth0"), net.attach(pod, "eth1")
    assert pod.space.link_names() == {"lo", "eth0", "eth1"}
    assert first.addresses()
    assert second.addresses()
    assert not first.addresses() & second.addresses()


def test_add_to_different_containers(net: Network) -> None:
    """Overview: endpoints are "uniquely addressable"."""
    attachments = [net.attach() for _ in range(5)]
    addresses = [address for a in attachments for address in a.addresses()]
    assert len(addresses) == len(set(addresses)) == 5


@pytest.mark.cni_needs("derived")
def test_add_to_two_networks(net: Network, pod: Pod) -> None:
    """Section 3: a container ID in two networks has two independent attachments."""
    first = net.attach(pod, "eth0")
    second = net.attach(pod, "eth1", second_network(net.conf()))
    assert first.addresses()
    assert second.addresses()
    net.delete(first).silent()
    assert second.addresses()
    assert pod.space.link_names() == {"lo", "eth1"}


@pytest.mark.cni_needs("derived")
def test_same_key_in_two_networks(net: Network, pod: Pod) -> None:
    """Section 1, name: networks are apart, though container ID and ifname are the same."""
    other = replace(net.pod(), container_id=pod.container_id)
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    first, second = net.attach(pod, conf=conf), net.attach(other, conf=second_network(net.conf()))
    net.delete(second).silent()
    net.add(net.pod(), conf=conf).error()  # the only address is still taken
    assert first.addresses()


@pytest.mark.parametrize("kind", ["missing", "file", "folder", "proc-file", "relative"])
def test_add_without_a_namespace(net: Network, pod: Pod, tmp_path: Path, kind: str) -> None:
    """Section 2, CNI_NETNS: "a path to the network namespace"; anything else fails."""
    (tmp_path / "file").write_text("")
    path = {
        "missing": "/nonexistent/netns",
        "file": str(tmp_path / "file"),
        "folder": str(tmp_path),
        "proc-file": "/proc/self/ns/mnt",
        "relative": "no/such/netns",
    }[kind]
    net.attach()  # so that what all pods share exists
    with net.unchanged(pod):
        net.run(replace(net.request("ADD", pod, net.conf()), netns=path)).error()


def test_add_by_the_path_of_a_process(net: Network, pod: Pod) -> None:
    """0.4.0, ADD: "i.e. /proc/[pid]/ns/net"; it is the result's sandbox too."""
    with process_in(pod.space) as process:
        path = f"/proc/{process}/ns/net"
        request = replace(net.request("ADD", pod, net.conf()), netns=path)
        result = net.run(request).result()
        assert path in {interface.get("sandbox") for interface in result["interfaces"]}
        assert pod.space.addresses(IFNAME)
        net.run(replace(request, command="DEL")).silent()
    assert pod.space.link_names() == {"lo"}


def test_add_by_a_link_to_the_path(net: Network, pod: Pod, tmp_path: Path) -> None:
    """0.4.0, ADD: "or a bind-mount/link to it"."""
    (tmp_path / "link").symlink_to(pod.path)
    request = replace(net.request("ADD", pod, net.conf()), netns=str(tmp_path / "link"))
    net.run(request).result()
    assert pod.space.addresses(IFNAME)
    net.run(replace(request, command="DEL")).silent()
    assert pod.space.link_names() == {"lo"}


@pytest.mark.cni_needs("ranges")
def test_add_without_an_address_left(net: Network, pod: Pod) -> None:
    """Section 2, Errors: exhausted is an error; nothing is left behind (SHOULD)."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    first = net.attach(conf=conf)
    with net.unchanged(pod):
        net.add(pod, conf=conf).error()
    net.delete(first).silent()
    assert net.attach(pod, conf=conf).addresses() == {"10.89.0.10/24"}


@pytest.mark.cni_needs("ranges")
@pytest.mark.parametrize("reason", ["name-taken", "no-namespace"])
def test_failed_add_keeps_no_address(net: Network, pod: Pod, reason: str) -> None:
    """Section 4: after a failed ADD the IPAM's reservation is undone (SHOULD)."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    pod.space.ip("link", "add", IFNAME, "type", "veth", "peer", "name", "other")
    request = net.request("ADD", pod, conf)
    if reason == "no-namespace":
        request = replace(request, netns="/nonexistent/netns")
    net.run(request).error()
    assert net.attach(conf=conf).addresses() == {"10.89.0.10/24"}


@pytest.mark.cni_needs("ranges")
def test_delete_after_failed_add(net: Network, pod: Pod) -> None:
    """Section 3, Lifecycle: "A delete must still be executed even if the add fails"."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    first = net.attach(conf=conf)
    with net.unchanged(pod, first.pod):
        net.add(pod, conf=conf).error()
        net.run(net.request("DEL", pod, conf)).silent()
    assert first.addresses() == {"10.89.0.10/24"}


def test_round_trip(net: Network, version: str) -> None:
    """Section 3, Lifecycle, in each declared version: nothing is left of an attachment."""
    net.attach(conf=net.conf(version))  # so that what all pods share exists
    pod = net.pod()
    with net.unchanged(pod, ignore=("lo",)):
        attachment = net.attach(pod, conf=net.conf(version))
        net.delete(attachment).silent()


def test_add_without_path(net: Network, pod: Pod) -> None:
    """Section 2, ADD: CNI_PATH is optional; where a delegated IPAM needs it, a clean error."""
    request = replace(net.request("ADD", pod, net.conf()), path=None)
    failed = net.run(request).failed()
    assert not failed or net.body.get("ipam", {}).get("type"), "CNI_PATH is not needed"
    assert pod.space.link_names() == ({"lo"} if failed else {"lo", IFNAME})


def test_add_without_runtime_config(net: Network, pod: Pod) -> None:
    """Section 3: runtimeConfig came with 0.3.1 and carries what was asked for, often nothing."""
    conf = net.conf()
    del conf["runtimeConfig"]
    net.run(replace(net.request("ADD", pod, conf), stdin=encode(conf))).result()
    assert pod.space.addresses(IFNAME)


def test_add_leaves_other_interfaces(net: Network, pod: Pod) -> None:
    """Section 2, ADD: interfaces that the pod had before stay as they are."""
    pod.space.ip("link", "add", "own0", "type", "veth", "peer", "name", "own1")
    pod.space.ip("address", "add", "192.0.2.1/24", "dev", "own0")
    before = pod.space.link("own0")
    net.delete(net.attach(pod)).silent()
    assert pod.space.link("own0") == before
