"""`loopback`: the pod's own loopback link is up."""

from __future__ import annotations

from ipaddress import ip_interface

from cni_plugin.errors import CHECK_FAILED, CniError
from cni_plugin.host import Call
from cni_plugin.result import Interface, IPConfig, Result
from kernel.attach import run_in
from kernel.netlink import links
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses, read_link

_NAME = "lo"


def add(call: Call) -> Result:
    """Set it up. The result of the plugins before, if any, is passed on."""
    request = call.request
    with call.host.open_netns(request.netns) as pod, run_in(pod) as nl:
        nl.run([links.set_up(_NAME)])
        link = read_link(nl, _NAME)
        found = [a.address for a in read_addresses(nl, [link] if link else [])]
    if previous := call.previous():
        return previous
    interface = Interface(_NAME, "00:00:00:00:00:00", sandbox=request.netns)
    loopback = [a for a in found if a.ip.is_loopback] or [ip_interface("127.0.0.1/8")]
    return Result((interface,), tuple(IPConfig(a, interface=0) for a in loopback))


def check(call: Call) -> None:
    """Raise code 102 where it is down."""
    with call.host.open_netns(call.request.netns) as pod, run_in(pod) as nl:
        if not _is_up(nl):
            raise CniError(CHECK_FAILED, f"link {_NAME} is down in the pod", "recreate the pod")


def _is_up(nl: Netlink) -> bool:
    link = read_link(nl, _NAME)
    return link is not None and link.up
