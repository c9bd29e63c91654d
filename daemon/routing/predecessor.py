"""What another plugin left between the nodes, removed on a node that podwire takes over from it.

Its daemon is gone, and leaves device and routes as they are (flannel, pkg/backend/vxlan; kind,
images/kindnetd/cmd/kindnetd/routes.go). They would keep podwire from its own: a VXLAN port and
network identifier are one device's, and a route to a peer's pods is one program's. What its pods
need stays: their links, addresses, routes and rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from daemon.config.schema import Predecessor, Settings
from daemon.model import Node
from daemon.routing.host_state import HostState
from daemon.routing.reporter import Reporter
from kernel.attach import delete_link_of_kind
from kernel.describe import name_of, state_of
from kernel.model import RTPROT_BOOT, Route
from kernel.netlink.socket import Netlink
from kernel.routes import change_entries

_DEVICES = re.compile(r"flannel(-v6)?\.\d+")


class PredecessorRemains:
    """Removes them wherever it finds them while `migrateFrom` is set, and reports each."""

    def __init__(self, nl: Netlink, settings: Settings, reporter: Reporter) -> None:
        self._nl, self._reporter = nl, reporter
        self._plugin = settings.migrate_from

    def remove(self, host: HostState, nodes: Iterable[Node], me: str) -> bool:
        """Remove what the host state has of them; whether there was any. Raises KernelError."""
        if self._plugin is None:
            return False
        devices, found = find_remains(self._plugin, host, nodes, me)
        cause = f"migrateFrom: {self._plugin}"
        for device in devices:
            if delete_link_of_kind(self._nl, device, "vxlan"):
                self._reporter.report_change("removed", f"link {device}", cause)
        failures = change_entries(self._nl, (), found)
        for failure in failures:
            self._reporter.report_failure(f"{failure}")
        for route in found if not failures else ():
            self._reporter.report_change("removed", name_of(route), cause, state_of(route))
        return bool(devices or found)


def find_remains(
    plugin: Predecessor, host: HostState, nodes: Iterable[Node], me: str
) -> tuple[Sequence[str], Sequence[Route]]:
    """The names of its VXLAN devices, and its routes by the address of the node that they are to.

    Routes through a device go with it. No program marks its own: an administrator's is the same.
    """
    of = {prefix: node for node in nodes if node.name != me for prefix in node.pod_cidrs}
    found = [
        route
        for route in host.routes
        if route.protocol == RTPROT_BOOT
        and route.dst in of
        and route.via in of[route.dst].addresses
    ]
    is_flannel = plugin == "flannel"
    devices = [
        link.name
        for link in host.links
        if is_flannel and link.kind == "vxlan" and _DEVICES.fullmatch(link.name)
    ]
    return devices, found
