"""`firewall`: the filters of other programs accept the pod's packets; ingress policies of links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.request import link_name_fault
from ipam.errors import ConfigError
from ipam.json_section import Section
from kernel.acceptance import FIREWALLD, IPTABLES, withdraw
from kernel.iptables import DEFAULT_ADMIN_CHAIN, is_chain_name
from kernel.model import Acceptance, IPAddress, Piece, Plan
from kernel.nftables.firewall import OPEN, POLICIES, policy_elements

if TYPE_CHECKING:
    from cni_plugin.host import Call
    from cni_plugin.result import Result
    from kernel.netlink.socket import Netlink

NAME = "firewall"
_DEFAULT_ZONE = "trusted"


@dataclass(frozen=True, slots=True)
class FirewallConf:
    """The keys of the reference plugin. backend: empty for firewalld where it runs."""

    backend: str = ""
    zone: str = _DEFAULT_ZONE
    admin_chain: str = DEFAULT_ADMIN_CHAIN
    policy: str = OPEN


def parse(conf: Section) -> FirewallConf:
    """The plugin's configuration. Raises ConfigError.

    The reference takes a backend that it does not know for none.
    """
    backend = conf.string("backend") or ""
    chain = conf.text("iptablesAdminChainName") or DEFAULT_ADMIN_CHAIN
    if not is_chain_name(chain):
        must = "a chain of the administrator's, up to 28 letters, digits and _ - + . : /"
        raise conf.fail("iptablesAdminChainName", chain, must)
    return FirewallConf(
        backend if backend in (IPTABLES, FIREWALLD) else "",
        conf.text("firewalldZone") or _DEFAULT_ZONE,
        chain,
        conf.choice("ingressPolicy", ("", *POLICIES)) or OPEN,
    )


def parse_native(conf: Section) -> FirewallConf:
    """The same of podwire's own configuration, from the object `firewall`. Raises ConfigError."""
    return parse(conf.section(NAME))


def plan_firewall(conf: FirewallConf, link: str, addresses: Iterable[IPAddress]) -> Piece:
    """What an attachment has for it. link: the bridge, or the node's end of the pod's pair."""
    accepted = Acceptance(tuple(addresses), conf.backend, conf.zone, conf.admin_chain)
    return Piece(NAME, elements=policy_elements(link, conf.policy), acceptance=accepted)


def native_acceptance(
    features: Mapping[str, object], addresses: tuple[IPAddress, ...]
) -> Acceptance | None:
    """What podwire's own attachment with these features and addresses has of filters."""
    conf = features.get(NAME)
    if not isinstance(conf, FirewallConf) or not addresses:
        return None
    return Acceptance(addresses, conf.backend, conf.zone, conf.admin_chain)


def native_piece(conf: FirewallConf, plan: Plan) -> Piece:
    """The piece of podwire's own attachment."""
    link = plan.bridge.name if plan.bridge else plan.node.links[0].name
    return plan_firewall(conf, link, (address.address.ip for address in plan.pod.addresses))


def plan_piece(call: Call, _nl: Netlink, previous: Result) -> Piece | None:
    """The piece of a chain's attachment: the result's addresses, and its first link of the node.

    Of `loopback`, which Nomad has in front, the result has other addresses and a link, too.
    """
    conf = parse(Section("", call.parsed.raw))
    link = _policed_link(previous) if conf.policy != OPEN else ""
    addresses = [ip.address.ip for ip in previous.ips if not ip.address.ip.is_loopback]
    return plan_firewall(conf, link, addresses) if addresses else None


def delete(call: Call) -> None:
    """Take the piece away; without one, what the reference plugin made for the result's addresses.

    Its rules are the same as ours, so they go unless another attachment has the address by now.
    """
    from cni_plugin import pieces
    from cni_plugin.store_access import stores_of_attachment

    folders = stores_of_attachment(call)
    known = [folder for folder in folders if _has_piece(call, folder)]
    pieces.delete(plan_piece, NAME, call)
    previous = None if known else call.previous()
    if previous:
        _withdraw_foreign(call, folders[0], previous)


def _has_piece(call: Call, folder: Path) -> bool:
    from cni_plugin.attachment import read_record
    from cni_plugin.store_access import open_node_store, tolerate_unwritable

    text = None
    opened = open_node_store(call, folder)
    with tolerate_unwritable(call), opened as store, store.read() as tx:
        text = tx.attachment(call.owner)
    record = read_record(text) if text else None
    # Of a record of another version only podwire of that version can tell.
    return record.piece(NAME) is not None if record else text is not None


def _withdraw_foreign(call: Call, folder: Path, previous: Result) -> None:
    from cni_plugin.leftovers import without_others
    from cni_plugin.network_rules import own_acceptance
    from cni_plugin.store_access import open_node_store, tolerate_unwritable
    from kernel.netlink.socket import open_netlink

    conf = FirewallConf()
    with suppress(ConfigError):
        conf = parse(Section("", call.parsed.raw))
    addresses = tuple(ip.address.ip for ip in previous.ips)
    with open_netlink() as nl:
        addresses = without_others(call, nl, addresses)
    made = Acceptance(addresses, conf.backend, conf.zone, conf.admin_chain)
    opened = open_node_store(call, folder)
    with tolerate_unwritable(call), opened as store, store.read() as tx:
        made = own_acceptance(tx, call.owner, made)
    withdraw(made)


def _policed_link(previous: Result) -> str:
    if not previous.interfaces:
        msg = "ingressPolicy needs an interface, and prevResult lists none"
        raise CniError(INVALID_CONFIG, msg, "list the plugin behind bridge or ptp")
    first = previous.interfaces[0]
    link = next((i for i in previous.interfaces if not i.sandbox), first).name
    fault = link_name_fault(link)
    if fault:
        msg = f"prevResult.interfaces: the name {link[:80]!r} is invalid: {fault}"
        raise CniError(INVALID_CONFIG, msg)
    return link
