"""What the reference plugins leave on the node for an attachment that podwire did not make.

A runtime whose plugins were replaced deletes with podwire what `bridge`, `ptp`, `host-local`,
`portmap` and `bandwidth` have made. Only what names the attachment itself is removed: reservations
by their content, rules by their comments and by the names of their chains, links by addresses and
MACs that these or prevResult give to it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from cni_plugin.errors import CniError
from cni_plugin.host import RUNTIME_CACHE, Call
from cni_plugin.names import ifb_name, is_marked
from cni_plugin.removal import NodeLinks
from cni_plugin.result import Result, canonical_mac
from cni_plugin.store_access import reservation_folders
from ipam.errors import IpamError
from ipam.host_local_files import (
    DEFAULT_IFNAME,
    Reservation,
    list_networks,
    read_reservations,
    release,
)
from ipam.transaction import Owner
from kernel import legacy_iptables
from kernel.attach import delete_link_of_kind, delete_links, delete_pod_link
from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace
from kernel.nftables.reference_rules import (
    IPTABLES,
    MASQUERADE,
    Traces,
    find_comments,
    remove_rules,
)
from kernel.paths import local_addresses
from kernel.read import read_link

_CHAIN_LENGTH, _HASH_LENGTH = 28, 16  # characters
_COMMENT_MAX = 255  # of iptables; portmap cuts its own
_FLANNEL = "/var/lib/cni/flannel"
"""Where the plugin `flannel` keeps what it delegated, a file for each container (flannel.go)."""


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What is known of an attachment. alone: whether its container has no other in the network."""

    addresses: frozenset[IPAddress] = frozenset()
    node_links: tuple[tuple[str, str], ...] = ()
    alone: bool = True


def remove_leftovers(call: Call, nl: Netlink, owner: Owner, pod: Namespace | None = None) -> None:
    """Remove what the reference plugins left for an attachment; repeatable.

    A network that was replaced may have had another name, and DEL comes with the new one: the
    container's interface is the same. pod: its namespace. Raises KernelError, IpamError.
    """
    _remove_all(call, nl, _names_of(call, owner), pod)


def _remove_all(
    call: Call, nl: Netlink, owners: Iterable[Owner], pod: Namespace | None = None
) -> None:
    removed: list[str] = []
    for each in owners:
        removed += _remove_one(call, nl, each, pod)
    if removed:
        call.log(f"removed what other plugins left: {', '.join(removed)}")


def _remove_one(call: Call, nl: Netlink, owner: Owner, pod: Namespace | None) -> list[str]:
    """The same by one network's name; what was removed, for the log."""
    evidence = _find_evidence(call, nl, owner)
    removed = []
    if pod is not None and delete_pod_link(pod, owner.ifname, (), evidence.addresses):
        removed.append(f"link {owner.ifname} of the pod")
    for name, mac in evidence.node_links:
        removed += [f"link {name}"] * delete_link_of_kind(nl, name, "veth", mac)
    removed += _remove_limits(nl, owner, evidence)
    removed += _remove_rules(call, _known_by(evidence, traces_of(owner)))
    if removed and evidence.addresses:
        call.host.forget_connections(evidence.addresses)
    removed += _remove_notes(call, owner)
    # Last: they are what a second try knows the rest by.
    return removed + release_reservations(call, owner.network, lambda o: o == owner)


def remove_leftovers_of(name: str, call: Call, nl: Netlink) -> None:
    """Remove what a chained plugin alone left. name: the plugin's. Raises KernelError."""
    removed: list[str] = []
    if name == "portmap":
        traces = traces_of(call.owner)
        chains = {name: c for name, c in traces.chains.items() if not c.startswith("name:")}
        mapped = Traces(chains, container_id=traces.container_id)
        removed += _remove_rules(call, _known_by(_find_evidence(call, nl, call.owner), mapped))
    elif name == "bandwidth":
        removed += _remove_limits(nl, call.owner, _find_evidence(call, nl, call.owner))
    if removed:
        call.log(f"removed what another plugin left: {', '.join(removed)}")


def _known_by(evidence: _Evidence, traces: Traces) -> Traces:
    """Those of the traces that are proven to be the attachment's: a container may have several."""
    chains = traces.chains if evidence.alone else {}
    return replace(traces, chains=chains, addresses=evidence.addresses)


def _remove_limits(nl: Netlink, owner: Owner, evidence: _Evidence) -> list[str]:
    """Remove the device of `bandwidth`, which is called after network and container."""
    link = read_link(nl, ifb_name(owner)) if evidence.alone else None
    if link is None or link.kind != "ifb" or is_marked(link.alias):
        return []
    return [f"link {link.name}"] * delete_links(nl, [link.name])


def _remove_notes(call: Call, owner: Owner) -> list[str]:
    """Remove the files that the plugin `flannel`, and libcni for another network, kept of it.

    libcni removes its own after a DEL, of the network that the configuration names then.
    """
    files = [os.path.join(_FLANNEL, owner.container_id)]
    if owner.network != call.owner.network:
        name = f"{owner.network}-{owner.container_id}-{owner.ifname}"
        files.append(os.path.join(RUNTIME_CACHE, name.replace("/", "")))
    removed = []
    for file in files:
        with suppress(OSError):
            os.unlink(file)
            removed.append(f"file {file}")
    return removed


def _remove_rules(call: Call, traces: Traces) -> list[str]:
    number = 0
    try:
        number = remove_rules(traces)
    except KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        call.log(f"rules are left, for rules of others lead to them: {error}")
    try:
        number += legacy_iptables.remove_chains(traces.chains)
    except KernelError as error:
        # DEL must not fail for ever because a program is missing.
        call.log(f"rules of legacy iptables may be left: {error}")
    return [f"{number} rules and chains"] if number else []


def release_reservations(call: Call, network: str, is_over: Callable[[Owner], bool]) -> list[str]:
    """Release reservations of `host-local` in a network; for the log. Raises IpamError."""
    found: list[Reservation] = []
    for folder in reservation_folders(call):
        found += release(folder, network, is_over)
    return [f"reservation of {reservation.address}" for reservation in found]


def collect_leftovers(call: Call, nl: Netlink, valid: Collection[Owner]) -> list[str]:
    """Remove what is left of the network's attachments that the runtime does not list; failures."""
    failures = []
    for owner in sorted(_find_owners(call)):
        if owner in valid:
            continue
        try:
            # Not what the container has in another network, of which nobody said that it is over.
            _remove_all(call, nl, [owner])
        except (KernelError, IpamError) as error:
            failures.append(f"{owner.container_id} {owner.ifname}: {error}")
    return failures


# -- what is known


def without_others(
    call: Call, nl: Netlink, addresses: Iterable[IPAddress]
) -> tuple[IPAddress, ...]:
    """Those of the addresses that no mark or reservation gives to another attachment.

    Raises IpamError, KernelError.
    """
    mine, key = call.owner, (call.owner.container_id, call.owner.ifname)
    reserved = _all_reservations(call)
    others = {r.address for r in reserved if (r.owner.container_id, r.owner.ifname) != key}
    others |= NodeLinks(nl).addresses_of_others(mine)
    return tuple(address for address in addresses if address not in others)


def _find_evidence(call: Call, nl: Netlink, owner: Owner) -> _Evidence:
    reserved = [r for f in reservation_folders(call) for r in read_reservations(f, owner.network)]
    own = {r.address for r in reserved if r.owner == owner}
    of_others = [r for r in reserved if r.owner != owner]
    alone = all(r.owner.container_id != owner.container_id for r in of_others)
    if (owner.container_id, owner.ifname) != (call.owner.container_id, call.owner.ifname):
        return _Evidence(frozenset(own), (), alone)
    previous = _previous_result(call)
    listed = {address.ip for address in previous.addresses_of_pod(owner.ifname)}
    links = tuple(
        (i.name, canonical_mac(i.mac)) for i in previous.interfaces if i.mac and not i.sandbox
    )
    # An address that prevResult has may be another container's by now, as may the namespace's path.
    listed -= {r.address for r in of_others} | NodeLinks(nl).addresses_of_others(owner)
    listed -= local_addresses(nl, listed)
    return _Evidence(frozenset(own | listed), links, alone)


def _names_of(call: Call, owner: Owner) -> list[Owner]:
    """The attachment by its own name, and by those of networks that have its interface, too."""
    found = {r.owner for r in _all_reservations(call)} | _masqueraded_owners()
    key = owner.container_id, owner.ifname
    same = {other for other in found if (other.container_id, other.ifname) == key}
    return sorted(same | {owner})


def _all_reservations(call: Call) -> Iterator[Reservation]:
    for folder in reservation_folders(call):
        for network in list_networks(folder):
            yield from read_reservations(folder, network)


def _masqueraded_owners() -> set[Owner]:
    comments = (comment for comment, _to in find_comments(MASQUERADE))
    return set(filter(None, map(owner_of_comment, comments)))


def _previous_result(call: Call) -> Result:
    with suppress(CniError):
        return call.previous() or Result()
    return Result()


def _find_owners(call: Call) -> set[Owner]:
    """The network's attachments that the reference plugins' files and rules name."""
    network = call.conf.name
    found = {r.owner for f in reservation_folders(call) for r in read_reservations(f, network)}
    found |= _masqueraded_owners()
    # Chains of iptables are a container's, whatever the interface.
    listed = {owner.container_id for owner in call.conf.valid_attachments or ()}
    comments = find_comments(IPTABLES)
    with suppress(KernelError):  # reported where they are removed
        comments += legacy_iptables.read_comments()
    chains = (owner for comment, to in comments if (owner := owner_of_chain(comment, to)))
    found |= {owner for owner in chains if owner.container_id not in listed}
    return {owner for owner in found if owner.network == network}


_MASQUERADED = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}, net: (\S+), if: (\S+), id: (\S+)")
_CHAIN_OF = re.compile(r'(?:dnat )?name: "([^"\\]+)" id: "([^"\\]+)"')


def owner_of_comment(comment: str) -> Owner | None:
    """The attachment that a comment in the masquerade table names and has the digest of."""
    found = _MASQUERADED.fullmatch(comment)
    owner = Owner(found[1], found[3], found[2]) if found else None
    return owner if owner and comment.startswith(_masquerade_hash(owner)) else None


def owner_of_chain(comment: str, chain: str) -> Owner | None:
    """The container that a comment names if the chain is called after it; some interface of it."""
    found = _CHAIN_OF.fullmatch(comment)
    owner = Owner(found[1], found[2], DEFAULT_IFNAME) if found else None
    return owner if owner and chain in traces_of(owner).chains else None


# -- names


def traces_of(owner: Owner) -> Traces:
    """How the reference plugins name the rules of an attachment."""
    network, container, ifname = owner.network, owner.container_id, owner.ifname
    comment = f'name: "{network}" id: "{container}"'
    mapped = f"dnat {comment}"
    if len(mapped) > _COMMENT_MAX:
        mapped = f"{mapped[: _COMMENT_MAX - 2]}..."
    key = network + container
    return Traces(
        chains={
            _named(_CHAIN_LENGTH, "CNI-", key): comment,
            _named(_CHAIN_LENGTH, "CNI-DN-", key): mapped,
            _named(_CHAIN_LENGTH, "CNI-SN-", key): f"snat {comment}",
        },
        container_id=container,
        masquerade=_masquerade_hash(owner),
        spoof_check=f"{container}-{ifname}",
    )


def _masquerade_hash(owner: Owner) -> str:
    instance = f"{owner.ifname}:{owner.container_id}"
    return f"{_named(_HASH_LENGTH, '', owner.network)}-{_named(_HASH_LENGTH, '', instance)}"


def _named(length: int, prefix: str, key: str) -> str:
    """A digest of a length (pkg/utils/utils.go, MustFormatHashWithPrefix)."""
    return f"{prefix}{hashlib.sha512(key.encode()).hexdigest()}"[:length]
