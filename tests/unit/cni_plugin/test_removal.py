"""Removal takes what is the attachment's, whatever was renamed or lost, and nothing of others."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from cni_plugin.attachment import load_record
from cni_plugin.handle import handle
from cni_plugin.names import host_link_name
from ipam.store import Owner, open_store
from kernel import attach
from kernel.attach import pod_has_link
from kernel.model import Element
from kernel.netlink.socket import Netlink, open_netlink
from kernel.netns import inside
from kernel.nftables.masquerade import HAIRPIN, hairpin_element
from kernel.nftables.port_mappings import ANY_ADDRESS, pod_of
from kernel.nftables.set_messages import read_elements
from kernel.nftables.table import open_nft
from kernel.read import read_links
from tests.unit.cni_plugin.calls import (
    CONFIG,
    Node,
    config,
    encode,
    environment,
    refused,
    succeeded,
)

pytestmark = pytest.mark.usefixtures("no_links")
HOST = host_link_name(Owner("podnet", "container1", "eth0"))
BRIDGED = config(mode="bridge", bridge="test0", isGateway=True, ipMasq=True)


def add(node: Node, container: str = "container1", conf: Mapping[str, Any] = CONFIG) -> None:
    succeeded(node.call(environment(CNI_CONTAINERID=container), conf))


def delete(node: Node, container: str = "container1", conf: Mapping[str, Any] = CONFIG) -> None:
    succeeded(node.call(environment("DEL", CNI_CONTAINERID=container), conf))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def in_pod(node: Node) -> bool:
    with node.host().open_netns("") as pod:
        return pod_has_link(pod, "eth0")


def links() -> set[str]:
    with open_netlink() as nl:
        return {link.name for link in read_links(nl)}


def hairpins() -> frozenset[Element]:
    with open_nft() as nl:
        return read_elements(nl, HAIRPIN[4]) or frozenset()


def test_the_link_of_another_attachment_stays(node: Node) -> None:
    """After an ADD that was refused because the pod has the link, a runtime sends DEL."""
    add(node)
    assert refused(node.call(environment(CNI_CONTAINERID="other"), CONFIG))["code"] == 103
    delete(node, "other")
    assert in_pod(node)
    delete(node)
    assert not in_pod(node)


def stranger(node: Node, mac: str = "02:00:00:00:be:ef") -> None:
    """Gives the pod a link eth0 that podwire did not make; its other end is in the pod, too."""
    with node.host().open_netns("") as pod, inside(pod):
        ip("link", "add", "eth0", "address", mac, "type", "veth", "peer", "name", "other0")


def test_a_link_that_podwire_did_not_make_stays(node: Node) -> None:
    """After a reboot CNI_NETNS=/proc/PID/ns/net may lead to any process's namespace."""
    stranger(node)
    delete(node)
    assert in_pod(node)


def test_a_link_in_a_namespace_that_another_pod_has_by_now_stays(node: Node) -> None:
    add(node)
    node.replace_pod()
    stranger(node)
    delete(node, conf=config(prevResult={"interfaces": [{"name": "eth0", "sandbox": "/x"}]}))
    assert in_pod(node)


def test_the_link_of_the_next_pod_with_the_same_address_stays(node: Node) -> None:
    """Its MAC follows from network and address, and so is that of the pod before."""
    one = {**CONFIG["ipam"], "rangeStart": "10.88.0.5", "rangeEnd": "10.88.0.5"}
    conf = config(ipam=one)
    result = succeeded(node.call(environment(), conf))
    node.replace_pod()
    delete(node, conf=conf)
    add(node, "next", conf)
    delete(node, conf={**conf, "prevResult": result})
    assert in_pod(node)
    delete(node, "next", conf)


@pytest.mark.parametrize("known", ["record", "prevResult"])
def test_a_link_with_the_attachments_mac_goes(node: Node, known: str) -> None:
    """Its other end is not on the node any more, or is another plugin's."""
    result = succeeded(node.call(environment(), CONFIG))
    mac = result["interfaces"][1]["mac"]
    ip("link", "del", HOST)
    if known == "prevResult":
        mac = result["interfaces"][1]["mac"] = "0A:00:00:00:BE:EF"
    stranger(node, mac)
    delete(node, conf=config(prevResult=result))
    assert not in_pod(node)


def test_a_link_whose_other_end_was_renamed_goes(node: Node) -> None:
    add(node)
    ip("link", "set", HOST, "down", "name", "renamed0")
    delete(node)
    assert not in_pod(node)
    assert "renamed0" not in links()


def test_a_link_without_a_mark_goes(node: Node) -> None:
    add(node)
    ip("link", "set", HOST, "down", "name", "renamed1", "alias", "a person's")
    delete(node)
    assert not in_pod(node)


def test_addresses_record_and_rules_go(node: Node) -> None:
    before = hairpins()
    add(node, conf=BRIDGED)
    assert len(hairpins()) == len(before) + 1
    with open_store(node.data_dir) as store, store.read() as tx:
        assert tx.attachments()
        assert tx.networks()
    delete(node, conf=BRIDGED)
    assert hairpins() == before
    with open_store(node.data_dir) as store, store.read() as tx:
        assert not tx.attachments()
        assert not tx.allocations()
        assert not tx.networks()


def test_rules_of_the_network_stay_until_its_last_attachment(node: Node) -> None:
    before = hairpins()
    add(node, conf=BRIDGED)
    node.replace_pod(keep=True)
    add(node, "container2", BRIDGED)
    delete(node, "container1", BRIDGED)
    assert len(hairpins() - before) == 1
    with open_store(node.data_dir) as store, store.read() as tx:
        assert list(tx.networks()) == ["podnet"]


def test_the_element_of_an_address_that_another_has_by_now_stays(node: Node) -> None:
    """A DEL that comes twice: in between the address went to the next pod."""
    add(node, conf=config(hairpinMode=True))
    owner, next_owner = (Owner("podnet", name, "eth0") for name in ("container1", "next"))
    with open_store(node.data_dir) as store, store.transaction() as tx:
        record = tx.attachment(owner) or ""
        element, *_checks = load_record(record).plan.elements
        (address,) = tx.release(owner)
        tx.reserve(next_owner, address)
        tx.put_attachment(next_owner, record)
    assert element == hairpin_element(HOST, address)
    delete(node)
    assert element in hairpins()


@pytest.mark.parametrize("record", ["no JSON", '{"schema": 1}', '{"schema": 2, "plan": {}}'])
def test_a_damaged_record(node: Node, record: str) -> None:
    """Removal goes by the name that is derived from the attachment's key."""
    add(node)
    owner = Owner("podnet", "container1", "eth0")
    with open_store(node.data_dir) as store, store.transaction() as tx:
        tx.put_attachment(owner, record)
    delete(node)
    assert HOST not in links()
    with open_store(node.data_dir) as store, store.read() as tx:
        assert not tx.knows(owner)


def test_a_lost_record(node: Node) -> None:
    """Removal goes by the mark on the link."""
    add(node, conf=config(hairpinMode=True))
    assert hairpin_element(HOST, ip_address("10.88.0.2")) in hairpins()
    owner = Owner("podnet", "container1", "eth0")
    with open_store(node.data_dir) as store, store.transaction() as tx:
        tx.delete_attachment(owner)
    delete(node)
    assert HOST not in links()
    assert hairpin_element(HOST, ip_address("10.88.0.2")) not in hairpins()
    with open_store(node.data_dir) as store, store.read() as tx:
        assert not tx.knows(owner)


def fail_after_the_bridge(node: Node, container: str, bridge: str) -> None:
    """An ADD that fails when it has its bridge: the pod has the link already, of another store."""
    conf = config(mode="bridge", bridge=bridge, isGateway=True, ipam={"subnet": "10.87.0.0/24"})
    node.data_dir, before = node.data_dir / container, node.data_dir
    answer = refused(node.call(environment(CNI_CONTAINERID=container), conf))
    node.data_dir = before
    assert answer["code"] == 103


def test_the_bridge_of_a_failed_add(node: Node) -> None:
    """It goes where no attachment uses it."""
    add(node)
    fail_after_the_bridge(node, "container2", "test1")
    assert "test1" not in links()


def test_the_bridge_of_others_stays_after_a_failed_add(node: Node) -> None:
    add(node, conf=BRIDGED)
    fail_after_the_bridge(node, "container2", "test0")
    assert "test0" in links()
    delete(node, conf=BRIDGED)


@pytest.mark.parametrize("valid", [None, [], [{"containerID": "container2", "ifname": "eth0"}]])
def test_gc(node: Node, valid: list[dict[str, str]] | None) -> None:
    """Without the runtime's list only attachments whose link is gone are stale."""
    add(node)
    node.replace_pod(keep=True)
    add(node, "container2")
    ip("link", "del", HOST)
    conf = config(**{"cni.dev/valid-attachments": valid})
    succeeded(node.call(environment("GC"), conf))
    with open_store(node.data_dir) as store, store.read() as tx:
        left = {owner.container_id for owner, _ in tx.attachments()}
        assert left == {a.owner.container_id for a in tx.allocations()}
    assert left == (set() if valid == [] else {"container2"})
    assert (host_link_name(Owner("podnet", "container2", "eth0")) in links()) == bool(left)


def test_gc_finds_links_that_no_record_names(node: Node) -> None:
    add(node)
    with open_store(node.data_dir) as store, store.transaction() as tx:
        tx.delete_attachment(Owner("podnet", "container1", "eth0"))
    ip("link", "set", HOST, "down", "name", "renamed2")
    succeeded(node.call(environment("GC"), config(**{"cni.dev/valid-attachments": []})))
    assert "renamed2" not in links()
    assert not in_pod(node)


def test_gc_leaves_other_networks_alone(node: Node) -> None:
    add(node)
    other = config(name="other", **{"cni.dev/valid-attachments": []})
    succeeded(node.call(environment("GC"), other))
    assert in_pod(node)


def test_ports_that_are_passed_on_during_a_delete_go_with_it(node: Node) -> None:
    """Both attachments of a container are deleted at once; the second has read its record."""
    # The node's last attachment takes the rules along.
    stays = environment(CNI_CONTAINERID="stays", CNI_IFNAME="eth2")
    succeeded(node.call(stays, with_port(9090)))
    (other,) = mappings()
    conf = with_port(8080)
    for ifname in ("eth0", "eth1"):
        succeeded(node.call(environment(CNI_IFNAME=ifname), conf))

    def delete_links(nl: Netlink, names: Sequence[str]) -> bool:
        succeeded(node.call(environment("DEL"), conf))
        assert [pod_of(e) for e in mappings() - {other}] == [ip_address("10.88.0.4")]
        return attach.delete_links(nl, names)

    host = replace(node.host(), delete_links=delete_links)
    assert [pod_of(e) for e in mappings() - {other}] == [ip_address("10.88.0.3")]
    succeeded(handle(environment("DEL", CNI_IFNAME="eth1"), encode(conf), host))
    assert mappings() == {other}


def with_port(port: int) -> dict[str, Any]:
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
    return config(runtimeConfig={"portMappings": [mapping]})


def mappings() -> frozenset[Element]:
    with open_nft() as nl:
        return read_elements(nl, ANY_ADDRESS[4]) or frozenset()
