"""This node's pods, by their links."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from cni_plugin.names import Mark, host_link_name, link_local, pod_mac, render_alias
from daemon.policy.local_pods import NAME_LABEL, LocalPods, with_local
from daemon.policy.model import Facts, PodFacts
from ipam.transaction import Owner
from kernel.model import Link, Port

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


def test_a_name_that_was_cut_off_is_that_of_the_one_pod_that_begins_so() -> None:
    name = "x" * 250
    facts = Facts(pods={("app", name): PodFacts("app", name)})
    cut = link(pod=f"app/{name}")
    assert len(cut.alias or "") == 254
    assert pods(cut, facts=facts) == {NAME: ("app", name)}
    twin = {**facts.pods, ("app", name + "y"): PodFacts("app", name + "y")}
    [key] = pods(cut, facts=Facts(pods=twin)).values()
    assert key not in twin


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
