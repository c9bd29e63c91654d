"""What another plugin left between nodes: found among what is an administrator's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.config.schema import Predecessor
from daemon.config.yaml import FileFault
from daemon.prefix_set import block_of
from daemon.routing.host_state import HostState, view_host
from daemon.routing.predecessor import find_remains
from kernel.model import Link, Route
from tests.unit.daemon.clusters import ME, cluster, host_state, node, paths, route, settings

NODES = [node(1), node(2), node(3)]


def by(number: int, via: int, **traits: int) -> Route:
    """A route to the pods of a node, by the address of another one."""
    return route(f"10.244.{number}.0/24", "eth0", f"192.0.2.{via}", **traits)


REMAINS = (by(2, 2), by(3, 3))
OTHERS = (
    by(2, 3),  # by another node
    by(3, 3, protocol=4),  # static
    by(1, 1),  # to its own pods
    replace(by(2, 2), via=None),
    route("0.0.0.0/0", "eth0", "192.0.2.2"),
)


@pytest.mark.parametrize("plugin", ["flannel", "kindnet"])
def test_routes_by_a_nodes_own_address_are_its(plugin: Predecessor) -> None:
    host = HostState(routes=(*OTHERS, *REMAINS))
    assert find_remains(plugin, host, NODES, ME) == ([], list(REMAINS))


def test_devices_are_flannels() -> None:
    kinds = {"flannel.1": "vxlan", "flannel-v6.4096": "vxlan", "flannel.2": "dummy"}
    kinds |= {"flannel.1x": "vxlan", "vxlan7": "vxlan", "podwire-vxlan": "vxlan"}
    host = HostState(links=tuple(Link(name, kind=kind) for name, kind in kinds.items()))
    assert find_remains("flannel", host, NODES, ME)[0] == ["flannel.1", "flannel-v6.4096"]
    assert find_remains("kindnet", host, NODES, ME) == ([], [])


def test_pods_of_another_plugin_take_nothing_of_the_nodes_prefix_but_their_addresses() -> None:
    """As `ptp` makes them, and flannel's device; a network in the prefix is an overlap yet."""
    links = (Link("veth1"), Link("flannel.1", kind="vxlan"), Link("lan", kind=""))
    pods = (("veth1", "10.244.1.1/32"), ("flannel.1", "10.244.1.0/32"))
    routes = (route("10.244.1.7/32", "veth1"),)
    for more, found in ((pods, ""), ((*pods, ("lan", "10.244.1.64/26")), "10.244.1.64/26 on lan")):
        host = host_state(links=links, more=more, routes=routes)
        for text in ("", "migrateFrom: kindnet"):
            known = paths(host, cluster(*NODES))
            view = view_host(settings(text), NODES[0], host, known, [])
            overlap = view.overlapping_network(block_of(NODES[0].pod_cidrs[0]), own=True)
            assert overlap == (found if text else overlap)
            assert text or overlap


def test_flannels_pods_are_on_a_bridge() -> None:
    with pytest.raises(FileFault, match=r"migrateFrom: flannel needs conflist.mode: bridge"):
        settings("migrateFrom: flannel")
    assert settings("migrateFrom: flannel\nconflist: {mode: bridge}").migrate_from == "flannel"
    assert settings("migrateFrom: flannel\nconflist: false").migrate_from == "flannel"
    with pytest.raises(FileFault, match="migrateFrom"):
        settings("migrateFrom: calico")
