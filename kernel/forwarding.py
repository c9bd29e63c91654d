"""Settings of the whole node, and what they would take along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kernel.model import Sysctl
from kernel.netlink import routes
from kernel.netlink.socket import Netlink
from kernel.read import read_links
from kernel.sysctl import apply_sysctl, read_sysctl

IPV6_FORWARDING = "net/ipv6/conf/all/forwarding"
_RTPROT_RA = 9


def apply_node_settings(nl: Netlink, settings: Iterable[Sysctl]) -> None:
    """Write settings that all attachments share."""
    for setting in settings:
        for each in (*settings_kept_for(nl, setting), setting):
            apply_sysctl(each)


def settings_kept_for(nl: Netlink, setting: Sysctl) -> Iterator[Sysctl]:
    """What must be written before a setting: links go on taking router advertisements.

    Turning forwarding on removes at once every default route that an advertisement brought, on
    links whose accept_ra is not 2, and they take no more (net/ipv6/addrconf.c, net/ipv6/route.c
    rt6_purge_dflt_routers): a node would lose its uplink with its first pod.
    """
    if setting.path != IPV6_FORWARDING or read_sysctl(setting.path) != "0":
        return
    answers = (routes.parse_route(message) for message in nl.dump(routes.list_routes(6)))
    found = (pair for pairs in answers for pair in pairs)
    indexes = {index for index, route in found if route.protocol == _RTPROT_RA}
    for link in read_links(nl) if indexes else ():
        path = f"net/ipv6/conf/{link.name}/accept_ra"
        if link.index in indexes and read_sysctl(path) == "1":
            yield Sysctl(path, "2", required=False)
