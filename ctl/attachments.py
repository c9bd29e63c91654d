"""The attachments of this node, from its stores and its kernel, and the one that a text names.

The daemon need not run. What no store has is read from the aliases of the node's links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from cni_plugin.attachment import DAMAGE, Record, load_record
from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.names import is_marked, parse_alias
from cni_plugin.rebuild import rebuild
from cni_plugin.store_index import find_stores
from daemon.options import Unusable
from daemon.routing.runtime_cache import RESULTS, Cached, read_cached
from ipam.errors import IpamError
from ipam.files import Files
from ipam.store import open_store
from ipam.transaction import Owner
from kernel.errors import NotANamespace
from kernel.model import Address, IPAddress, IPInterface, Link, Plan, Space
from kernel.netlink.socket import Netlink
from kernel.netns import open_namespace
from kernel.pairs import PairEnd, read_pairs
from kernel.pod_side import read_number

NAMED_NAMESPACES = ("/run/netns", "/var/run/netns", "/run/docker/netns")
"""Where runtimes and ip-netns(8) keep network namespaces by name."""
PREFIX_MIN = 4
"""Characters of a container ID that are taken for its beginning."""
_PATIENCE = 1.0  # seconds to wait for a store that others lock
_NAMED = 5
_INODE = re.compile(r"net:\[(\d{1,19})\]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class UnknownName(Unusable):
    """No attachment of this node has that name."""


class AmbiguousName(Unusable):
    """Attachments of several containers have that name."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one pod.

    record: as the store has it; complete is False in one that an alias was read for. addresses: the
    pod's. end: the node's end of the pair as it is now, None where the record's is gone.
    since: seconds since 1970, None where that is not known. folder: of its store, None where no
    store has it. plugin: the type of another plugin that wired it, empty where podwire did.
    """

    owner: Owner
    record: Record
    addresses: tuple[IPInterface, ...] = ()
    end: PairEnd | None = None
    since: float | None = None
    folder: Path | None = None
    plugin: str = ""

    @property
    def pod(self) -> str:
        """namespace/name of the Kubernetes pod; empty where the runtime sent none."""
        return self.record.pod

    @property
    def name(self) -> str:
        """How commands take the pod."""
        return self.pod or self.owner.container_id[:16]

    @property
    def title(self) -> str:
        """How messages name the pod."""
        return self.pod or f"container {self.name}"

    @property
    def netns(self) -> str:
        """The path that the runtime named; empty where it is not known."""
        return self.record.netns

    @property
    def host(self) -> str:
        """The name of the node's end, as recorded."""
        return self.record.foreign or self.record.plan.node.links[0].name

    @property
    def bridge(self) -> str:
        """The bridge that the node's end is to be on; empty for none."""
        if self.record.plan.bridge:
            return self.record.plan.bridge.name
        port = self.end.link.port if self.end else None
        return port.bridge if port and not self.record.complete else ""

    @property
    def pod_mac(self) -> str:
        """The MAC of the pod's end, as recorded; empty where it is not known."""
        return self.record.whole.pod.links[0].mac or ""

    @property
    def ips(self) -> tuple[IPAddress, ...]:
        """The addresses without their prefix lengths."""
        return tuple(a.ip for a in self.addresses)


@dataclass(frozen=True, slots=True)
class Attachments:
    """All of the node, in order of pod and interface. faults: what could not be read, and why."""

    found: tuple[Attachment, ...]
    faults: tuple[str, ...] = ()


def read_attachments(nl: Netlink, data_dir: Path, results: Path = RESULTS) -> Attachments:
    """Read the stores of the node and its links. Raises KernelError.

    nl: a socket in the node's namespace. data_dir: the store of the configuration. results: the
    runtime's cache, which knows pods that other plugins wired.
    """
    ends = {end.link.name: end for end in read_pairs(nl)}
    faults: list[str] = []
    found = {each.owner: each for each in _read_stores(data_dir, faults)}
    found = {owner: _with_end(each, ends) for owner, each in found.items()}
    for end in ends.values():
        mark = parse_alias(end.link.alias)
        if mark and mark.owner not in found:
            record = rebuild(end.link, mark)
            found[mark.owner] = Attachment(mark.owner, record, mark.addresses, end)
    known = {owner.container_id for owner in found}
    others = (c for c in read_cached(results) if c.container_id not in known)
    found |= {each.owner: _with_end(each, ends) for each in map(_by_another, others)}
    return Attachments(tuple(sorted(found.values(), key=_rank)), tuple(faults))


def _rank(each: Attachment) -> tuple[object, ...]:
    owner = each.owner
    return not each.pod, each.pod, owner.container_id, owner.ifname, owner.network


def _read_stores(data_dir: Path, faults: list[str]) -> Iterator[Attachment]:
    for folder in find_stores(DEFAULT_INDEX, data_dir):
        try:
            yield from _read_store(folder, faults)
        except IpamError as error:
            faults.append(f"{folder}: {error}")


def _read_store(folder: Path, faults: list[str]) -> Iterator[Attachment]:
    if not Files(folder).database.exists():
        return
    with open_store(folder, create=False, patience=_PATIENCE) as store, store.read() as tx:
        records = tx.attachments()
        since = {a.owner: a.created_at for a in tx.allocations()}
    for owner, text in records:
        try:
            record = load_record(text)
        except DAMAGE as error:
            faults.append(f"{folder}: the record of {owner} cannot be read: {error}")
            continue
        addresses = tuple(a.address for a in record.whole.pod.addresses)
        yield Attachment(owner, record, addresses, None, since.get(owner), folder)


def _by_another(cached: Cached) -> Attachment:
    """One that another plugin made, as far as the runtime knows it."""
    addresses = tuple(Address(cached.ifname, a) for a in cached.addresses)
    plan = Plan(Space((Link(cached.host),)), Space((Link(cached.ifname),), addresses))
    record = Record(plan, cached.netns, cached.pod, complete=False, foreign=cached.host)
    owner = Owner(cached.network, cached.container_id, cached.ifname)
    return Attachment(owner, record, cached.addresses, plugin=cached.plugin or "another plugin")


def _with_end(attachment: Attachment, ends: Mapping[str, PairEnd]) -> Attachment:
    """With the node's end, if the link of that name is the attachment's."""
    end = ends.get(attachment.host)
    if end is None:
        return attachment
    planned = attachment.record.plan.node.links[0]
    proven = is_marked(end.link.alias) and end.link.alias == planned.alias
    if proven or attachment.record.foreign or end.link.mac == planned.mac:
        return replace(attachment, end=end)
    return attachment


def find_attachments(nl: Netlink, known: Iterable[Attachment], text: str) -> list[Attachment]:
    """Those that the text names, of any number of pods; none where it names none.

    text: a pod ("namespace/name", or the name), a container ID or its beginning, an address, a MAC
    or the link's name of either end, or the pod's network namespace (path, name of the runtime's,
    or net:[4026532000] as readlink(1) shows it). Raises KernelError.
    """
    known = list(known)
    if text.startswith("/"):
        return _in_namespace(nl, known, text)
    inode = _INODE.fullmatch(text)
    if inode:
        return [each for each in known if _inode_of(each.netns) == int(inode[1])]
    exact = [each for each in known if _is_named(each, text)]
    if exact:
        return exact
    starting = [e for e in known if e.owner.container_id.startswith(text)]
    if starting and len(text) >= PREFIX_MIN:
        return starting
    if "/" in text or text in (".", ".."):
        return []
    paths = (f"{folder}/{text}" for folder in NAMED_NAMESPACES)
    return next(filter(None, (_in_namespace(nl, known, path) for path in paths)), [])


def _is_named(each: Attachment, text: str) -> bool:
    name = each.pod.partition("/")[2]
    if text in (each.pod, name, each.owner.container_id, each.host):
        return bool(text)
    if _MAC.match(text.lower()):
        end = each.end.link.mac if each.end else None
        return text.lower() in (each.pod_mac, end, each.record.plan.node.links[0].mac)
    with suppress(ValueError):
        return ip_address(text) in each.ips
    return False


def _inode_of(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except (OSError, ValueError):
        return -1


def _in_namespace(nl: Netlink, known: list[Attachment], path: str) -> list[Attachment]:
    """Those whose pod's end is in the namespace, whichever of its paths this is."""
    try:
        with open_namespace(path) as pod:
            number = read_number(nl, pod)
    except NotANamespace:
        # In a container the runtime's paths may not be there.
        return [each for each in known if each.netns == path]
    return [each for each in known if number >= 0 and each.end and each.end.namespace == number]


def find_pod(nl: Netlink, attachments: Attachments, text: str) -> list[Attachment]:
    """The attachments of the one pod that the text names. Raises UnknownName, AmbiguousName.

    Of several containers of one pod's name, which is being replaced, that one whose links exist.
    """
    found = find_attachments(nl, attachments.found, text)
    if not found:
        raise UnknownName(describe_unknown(attachments, text))
    containers = _containers(found)
    if len(containers) > 1 and len({each.pod for each in found if each.pod}) == 1:
        alive = _containers(each for each in found if each.end)
        containers = alive if len(alive) == 1 else containers
    if len(containers) > 1:
        raise AmbiguousName(_describe_ambiguous(containers, text))
    return next(iter(containers.values()))


def _containers(found: Iterable[Attachment]) -> dict[str, list[Attachment]]:
    containers: dict[str, list[Attachment]] = {}
    for each in found:
        containers.setdefault(each.owner.container_id, []).append(each)
    return containers


def describe_unknown(attachments: Attachments, text: str) -> str:
    """What to print where nothing has that name."""
    from difflib import get_close_matches  # for messages alone

    names = {each.pod for each in attachments.found if each.pod}
    names |= {name.partition("/")[2] for name in names}
    near = get_close_matches(text, sorted(names), 2)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    count = len(attachments.found)
    faults = f"; not everything could be read: {'; '.join(attachments.faults)}"
    reading = faults if attachments.faults else ""
    return (
        f"{text!r} is no pod, container ID, address, link, MAC or network namespace of the {count}"
        f" attachments on this node{meant}{reading}; `podwirectl pods` lists them, pods with"
        " hostNetwork have none"
    )


def _describe_ambiguous(containers: Mapping[str, list[Attachment]], text: str) -> str:
    firsts = [each[0] for each in containers.values()][:_NAMED]
    named = ", ".join(
        f"{e.pod or 'container'} ({e.owner.container_id[:16]}, {e.host})" for e in firsts
    )
    more = ", ..." if len(containers) > _NAMED else ""
    count = len(containers)
    return f"{text!r} is ambiguous: {count} pods have it ({named}{more}); name one of them"
