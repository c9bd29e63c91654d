"""DEL (SPEC section 2 "DEL", section 3 "Deleting an attachment")."""

from __future__ import annotations

from pathlib import Path

import pytest

from .netconf import with_pool
from .network import IFNAME, Network, Pod, encode
from .snapshot import eventually, unchanged


def test_delete_removes_the_interface(net: Network, version: str) -> None:
    """Section 2, DEL: "delete the interface defined by CNI_IFNAME"; no output."""
    attachment = net.attach(conf=net.conf(version))
    net.delete(attachment).silent()
    assert attachment.pod.space.link_names() == {"lo"}


def test_delete_again(net: Network) -> None:
    """Section 2, DEL: "Plugins MUST accept multiple DEL calls" for the same pair."""
    attachment = net.attach()
    net.delete(attachment).silent()
    with net.unchanged(attachment.pod):
        net.delete(attachment).silent()
        net.delete(attachment).silent()


def test_delete_before_any_add(net: Network, pod: Pod) -> None:
    """Section 2, DEL: success "if the interface in question [is] missing" (MUST)."""
    with net.unchanged(pod):
        net.run(net.request("DEL", pod, net.conf())).silent()


def test_delete_of_another_container(net: Network, pod: Pod) -> None:
    """Section 2, DEL: a DEL for a container never added leaves the others alone."""
    attachment = net.attach()
    with net.unchanged(attachment.pod, pod):
        net.run(net.request("DEL", pod, net.conf())).silent()


def test_delete_leaves_other_containers(net: Network) -> None:
    """Section 3, Lifecycle: attachments of different containers are independent."""
    first, second = net.attach(), net.attach()
    with unchanged(second.pod.space):
        net.delete(first).silent()
    assert second.addresses()


def test_delete_of_one_interface_name(net: Network, pod: Pod) -> None:
    """Section 3: an attachment is (CNI_CONTAINERID, CNI_IFNAME); the other one stays."""
    first, second = net.attach(pod, "eth0"), net.attach(pod, "eth1")
    addresses = second.addresses()
    net.delete(first).silent()
    assert pod.space.link_names() == {"lo", "eth1"}
    assert second.addresses() == addresses


@pytest.mark.cni_needs("ranges")
def test_delete_of_one_interface_name_keeps_the_others_address(net: Network, pod: Pod) -> None:
    """Section 3, Attachment Parameters: the key of a reservation has the ifname in it."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.11")
    first, second = net.attach(pod, "eth0", conf), net.attach(pod, "eth1", conf)
    net.delete(first).silent()
    assert (
        net.attach(conf=conf).addresses()
        == {
            "10.89.0.10/24",
            "10.89.0.11/24",
        }
        - second.addresses()
    )
    net.add(net.pod(), conf=conf).error()


@pytest.mark.cni_needs("ranges")
def test_delete_frees_the_address(net: Network) -> None:
    """0.4.0, DEL: "release all resources held by the supplied containerid"."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    for _ in range(2):
        attachment = net.attach(conf=conf)
        assert attachment.addresses() == {"10.89.0.10/24"}
        net.delete(attachment).silent()


def test_delete_without_previous_result(net: Network, version: str) -> None:
    """Section 2, DEL: "should still return without error if prevResult is empty"."""
    attachment = net.attach(conf=net.conf(version))
    net.delete(attachment, stdin=encode(attachment.conf)).silent()
    assert attachment.pod.space.link_names() == {"lo"}


def test_delete_with_null_previous_result(net: Network) -> None:
    """Section 2, DEL: an empty prevResult is none (SHOULD)."""
    attachment = net.attach()
    stdin = encode({**attachment.conf, "prevResult": None})
    net.delete(attachment, stdin=stdin).silent()
    assert attachment.pod.space.link_names() == {"lo"}


@pytest.mark.parametrize("how", ["path-missing", "unset", "empty"])
def test_delete_after_the_namespace(net: Network, how: str) -> None:
    """Section 2, DEL: best effort "even if the container network namespace" is gone."""
    attachment = net.attach()
    host = _host_links(net)
    attachment.pod.space.remove()
    netns = {"path-missing": attachment.pod.path, "unset": None, "empty": ""}[how]
    net.delete(attachment, netns=netns).silent()
    ports = {name for name in host if "veth" in host[name]}
    eventually(lambda: not ports & set(_host_links(net)), f"{ports} disappear")


@pytest.mark.cni_needs("ranges")
@pytest.mark.parametrize("how", ["path-missing", "unset", "empty"])
@pytest.mark.parametrize("result", ["with-result", "without-result"])
def test_delete_after_the_namespace_frees_the_address(net: Network, how: str, result: str) -> None:
    """Section 2, DEL: "an IPAM plugin should generally release an IP allocation" (SHOULD)."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    attachment = net.attach(conf=conf)
    attachment.pod.space.remove()
    netns = {"path-missing": attachment.pod.path, "unset": None, "empty": ""}[how]
    stdin = encode(attachment.check_conf() if result == "with-result" else conf)
    net.delete(attachment, netns=netns, stdin=stdin).silent()
    assert net.attach(conf=conf).addresses() == {"10.89.0.10/24"}


@pytest.mark.parametrize("netns", [None, ""], ids=("unset", "empty"))
def test_delete_without_naming_the_namespace(net: Network, netns: str | None) -> None:
    """Section 2, DEL: CNI_NETNS is optional; success though the namespace lives on."""
    attachment = net.attach()
    net.delete(attachment, netns=netns).silent()
    net.delete(attachment, netns=netns).silent()


def test_delete_where_the_path_is_a_plain_file(net: Network, tmp_path: Path) -> None:
    """Section 2, DEL: after a reboot the path is an empty file; best effort (SHOULD)."""
    attachment = net.attach()
    (tmp_path / "netns").write_text("")
    attachment.pod.space.remove()
    net.delete(attachment, netns=str(tmp_path / "netns")).silent()


def test_delete_after_the_interface(net: Network) -> None:
    """Section 2, DEL: success "if the interface in question [is] missing" (MUST)."""
    attachment = net.attach()
    attachment.pod.space.ip("link", "delete", IFNAME)
    net.delete(attachment).silent()


@pytest.mark.cni_needs("ranges")
def test_delete_after_the_interface_frees_the_address(net: Network) -> None:
    """Section 2, DEL: "even if some resources or state are missing"."""
    conf = with_pool(net.conf(), "10.89.0.10", "10.89.0.10")
    attachment = net.attach(conf=conf)
    attachment.pod.space.ip("link", "delete", IFNAME)
    net.delete(attachment).silent()
    assert net.attach(conf=conf).addresses() == {"10.89.0.10/24"}


def test_delete_after_the_hosts_links(net: Network) -> None:
    """Section 2, DEL: success though a bridge or host interface was deleted by hand."""
    attachment = net.attach()
    for name in _host_links(net):
        if name in net.node.link_names():
            net.node.ip("link", "delete", name)
    net.delete(attachment).silent()
    assert attachment.pod.space.link_names() == {"lo"}


def test_delete_without_path(net: Network) -> None:
    """Section 2, DEL: CNI_PATH is optional; where a delegated IPAM needs it, a clean error."""
    attachment = net.attach()
    failed = net.delete(attachment, path=None).failed()
    assert not failed or net.body.get("ipam", {}).get("type"), "CNI_PATH is not needed"


def test_add_after_delete(net: Network, pod: Pod) -> None:
    """Section 2, ADD: allowed again after the DEL in between."""
    for _ in range(3):
        attachment = net.attach(pod)
        assert attachment.addresses()
        net.delete(attachment).silent()


def test_delete_ignores_what_else_lies_in_the_pod(net: Network, pod: Pod) -> None:
    """Section 2, DEL: only what this plugin's ADD made."""
    pod.space.ip("link", "add", "own0", "type", "veth", "peer", "name", "own1")
    attachment = net.attach(pod)
    net.delete(attachment).silent()
    assert pod.space.link_names() == {"lo", "own0", "own1"}


def _host_links(net: Network) -> dict[str, str]:
    """Name and kind of the node's links but loopback."""
    links = net.node.show("link", "show")
    return {
        link["ifname"]: link.get("linkinfo", {}).get("info_kind", "")
        for link in links
        if link["ifname"] != "lo"
    }
