"""This node's pods, by their links."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address, ip_interface

import pytest

from cni_plugin.names import ALIAS_MAX, Mark, host_link_name, link_local, pod_mac, render_alias
from daemon.policy.compile import compile_rules
from daemon.policy.local_pods import NAME_LABEL, LocalPods, with_local
from daemon.policy.model import Facts, Key, PodFacts, Policy
from ipam.transaction import Owner
from kernel.model import Link, Port
from kernel.netlink.monitor import Monitor
from tests.unit.cni_plugin.namespaces import elsewhere

ADDRESS = ip_interface("10.0.0.2/32")
OWNER = Owner("net", "c1", "eth0")
NAME = host_link_name(OWNER)


def link(pod: str = "app/web", name: str = NAME, **more: object) -> Link:
    alias = render_alias(Mark(OWNER, (ADDRESS,), pod=pod))
    return Link(**{"name": name, "alias": alias, **more})  # type: ignore[arg-type]


NOTHING = Facts()


def pods(*links: Link, facts: Facts = NOTHING) -> dict[str, object]:
    local = LocalPods()
    for each in links:
        local.receive(each, deleted=False)
    return {pod.link: pod.key for pod in local.pods(facts)}


def test_a_pod_is_known_by_its_mark_and_gone_with_its_link() -> None:
    local = LocalPods()
    assert local.receive(link(), deleted=False)
    assert not local.receive(link(), deleted=False)
    [found] = local.pods(Facts())
    assert (found.key, found.addresses) == (("app", "web"), (ADDRESS.ip,))
    assert local.receive(link(), deleted=True)
    assert local.pods(Facts()) == []


def test_what_is_not_marked_yet_stays_closed() -> None:
    assert pods(link(alias=None)) == {}


def test_what_is_no_pod_of_kubernetes_is_known_without_a_name() -> None:
    assert pods(link(pod="")) == {NAME: None}
    assert pods(link(alias="podwire: the attachment's name is too long")) == {NAME: None}
    assert pods(link(name="pwan0", alias=None)) == {"pwan0": None}
    assert pods(link(name="eth0")) == {}


ROOM = ALIAS_MAX - len(render_alias(Mark(OWNER, (ADDRESS,), pod="app/x"))) + 1
"""Characters that the alias has for the name of a pod of app."""


def replicas(*names: str, addresses: str = "10.0.0.{}") -> tuple[list[Link], dict[Key, PodFacts]]:
    """Pods of app with the addresses 10.0.0.1 and so on, and what the API has of them."""
    links, described = [], {}
    for number, name in enumerate(names, 1):
        owner, own = Owner("net", f"c{number}", "eth0"), ip_interface(f"10.0.0.{number}/32")
        alias = render_alias(Mark(owner, (own,), pod=f"app/{name}"))
        assert len(alias) == ALIAS_MAX
        links.append(Link(host_link_name(owner), alias=alias))
        listed = ip_address(addresses.format(number))
        described["app", name] = PodFacts("app", name, addresses=(listed,))
    return links, described


@pytest.mark.parametrize("ends", [("-1", "-2"), ("", "-2")], ids=["alike", "one whole"])
def test_names_that_were_cut_off_are_those_of_the_pods_with_their_addresses(
    ends: tuple[str, str],
) -> None:
    names = ["x" * ROOM + end for end in ends]
    (first, second), described = replicas(*names)
    one, other = described
    # Before the API describes the second one, the first one's policies are not the second's.
    for known in ({}, {one: described[one]}, {other: described[other]}, described):
        found = pods(first, second, facts=Facts(pods=known))
        assert {key for key in found.values() if key in described} == known.keys()
        for link, key in ((first, one), (second, other)):
            assert (found[link.name] == key) is (key in known)


def test_a_pod_whose_name_was_cut_off_is_closed_until_its_address_is_known() -> None:
    links, described = replicas("x" * ROOM + "-1", "x" * ROOM + "-2")
    _links, without = replicas(*(name for _app, name in described), addresses="192.0.2.{}")
    policies = {("app", "p"): Policy("app", "p")}
    local = LocalPods()
    for each in links:
        local.receive(each, deleted=False)

    def closed(known: dict[Key, PodFacts]) -> int:
        facts = Facts(policies, pods=known)
        found = local.pods(facts)
        return len(compile_rules(with_local(facts, found, names_pods=False), found).closed)

    assert closed(described) == 0
    assert closed(dict([*described.items()][:1])) == 1
    assert closed(without) == 2


def test_all_links_of_a_container_are_its_pods_though_the_api_has_the_addresses_of_one() -> None:
    [first], described = replicas("x" * ROOM + "-1")
    [name] = described
    owner = Owner("other", "c1", "net1")
    mark = Mark(owner, (ip_interface("192.0.2.1/32"),), pod="/".join(name))
    second = Link(host_link_name(owner), alias=render_alias(mark))
    assert {*pods(first, second, facts=Facts(pods=described)).values()} == {name}


def test_a_pod_whose_namespace_was_cut_off_is_closed_if_one_that_begins_so_has_policies() -> None:
    owner = Owner("n" * 150, "c1", "eth0")
    cut = Link(
        host_link_name(owner), alias=render_alias(Mark(owner, (ADDRESS,), pod="s" * 60 + "/web"))
    )
    assert "/" not in (cut.alias or "").partition("pod=")[2]
    local = LocalPods()
    local.receive(cut, deleted=False)
    for namespace, expected in (("s" * 60, 1), ("t", 0)):
        facts = Facts({(namespace, "p"): Policy(namespace, "p")})
        assert len(compile_rules(facts, local.pods(facts)).closed) == expected


def test_pods_of_a_bridge_are_known_by_their_addresses() -> None:
    local = LocalPods()
    local.receive(link(port=Port("7")), deleted=False)
    [found] = local.pods(Facts())
    own = link_local(pod_mac(Mark(OWNER, (ADDRESS,))))
    assert (found.key, found.places) == (("app", "web"), (ADDRESS.ip, own))


def test_a_bridge_is_closed_to_what_is_not_known_while_all_its_ports_are_pods() -> None:
    local = LocalPods()
    bridge = Link("br0", kind="bridge", index=7)
    local.receive(bridge, deleted=False)
    assert local.bridges() == set()
    local.receive(link(alias=None, port=Port("7")), deleted=False)
    assert local.bridges() == {"br0"}
    local.receive(link(port=Port("7")), deleted=False)
    assert local.bridges() == {"br0"}
    other = Link("eth1", port=Port("7"))
    assert local.receive(other, deleted=False)
    assert local.bridges() == set()
    assert local.receive(other, deleted=True)
    assert local.bridges() == {"br0"}
    local.receive(
        link(alias="podwire: the attachment's name is too long", port=Port("7")), deleted=False
    )
    assert local.bridges() == set()


def test_events_of_a_bridge_leave_what_a_list_of_links_has() -> None:
    alias = render_alias(Mark(OWNER, (ADDRESS,), pod="app/web"))
    commands = [
        each.split()
        for each in (
            "ip link add br0 up type bridge",
            f"ip link add {NAME} master br0 up type veth peer end",
            "ip link set end up",
        )
    ]
    followed, listed = LocalPods(), LocalPods()
    with elsewhere(), Monitor() as monitor:
        for command in (*commands, ["ip", "link", "set", "dev", NAME, "alias", alias]):
            subprocess.run(command, check=True)
        for event in monitor.read():
            if isinstance(event.noun, Link):
                followed.receive(event.noun, deleted=event.deleted)
        listed.read()
    assert followed.pods(Facts()) == listed.pods(Facts())
    assert followed.bridges() == listed.bridges() == {"br0"}


def test_the_bridge_of_the_first_pod_to_come_is_closed() -> None:
    local = LocalPods("br0")
    assert local.bridges() == {"br0"}
    local.receive(Link("br0", kind="bridge", index=7), deleted=False)
    assert local.bridges() == {"br0"}
    other = Link("eth1", port=Port("7"))
    local.receive(other, deleted=False)
    assert local.bridges() == set()
    local.receive(other, deleted=True)
    local.receive(Link("br0", kind="bridge", index=7), deleted=True)
    assert local.bridges() == {"br0"}


def test_addresses_of_pods_are_known_before_the_source_says_them() -> None:
    local = LocalPods()
    local.receive(link(), deleted=False)
    found = local.pods(Facts())
    known = Facts(pods={("app", "web"): PodFacts("app", "web", {"a": "b"})})
    assert with_local(known, found, names_pods=False).pods["app", "web"].addresses == (ADDRESS.ip,)
    assert with_local(Facts(), found, names_pods=False).pods == {}
    named = with_local(Facts(), found, names_pods=True).pods["app", "web"]
    assert (named.labels, named.addresses) == ({NAME_LABEL: "web"}, (ip_address("10.0.0.2"),))
