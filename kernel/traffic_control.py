"""Limits of what links send: token buckets, and redirections to ifb devices that have one.

What a pod sends is received by the node's end of its pair, where nothing can wait: it is redirected
to an ifb device, waits in the bucket of that, and comes back as if it were received just then.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from kernel.diff import Change, Noun
from kernel.errors import KernelError
from kernel.model import Link, Redirect, Space, TokenBucket
from kernel.netlink import links
from kernel.netlink import traffic_control as tc
from kernel.netlink.socket import Netlink
from kernel.read import read_link, read_links

_PRESENT = frozenset({errno.EEXIST})
# Of a link that has none the kernel answers ENOENT or EINVAL (net/sched/sch_api.c, cls_api.c).
_NONE = frozenset({errno.ENOENT, errno.EINVAL})


def apply_limits(nl: Netlink, desired: Space, index: int) -> None:
    """Limit a new link, of that index, and make its ifb devices, before it is set up.

    desired.links: the link itself, and the devices, which stay down. Raises KernelError, and then
    the devices are gone.
    """
    indexes = {desired.links[0].name: index}
    with ExitStack() as undo:
        for link in desired.links[1:]:
            indexes[link.name] = _create_ifb(nl, link)
            undo.callback(nl.exchange, [links.delete_link(link.name)])
        messages = [tc.set_bucket(bucket, indexes[bucket.link]) for bucket in desired.buckets]
        for redirect in desired.redirects:
            name, index = redirect.link, indexes[redirect.link]
            messages += [tc.add_ingress(name, index)]
            messages += [tc.add_redirect(name, index, indexes[redirect.to])]
        nl.run([*map(links.set_traits, desired.links[1:]), *messages])
        undo.pop_all()


def add_limits(nl: Netlink, desired: Space, undo: ExitStack) -> None:
    """Limit links that are there, and make their ifb devices: desired.links. Raises KernelError.

    undo takes what reverts each step.
    """
    indexes = {}
    for link in desired.links:
        indexes[link.name] = _create_ifb(nl, link)
        undo.callback(nl.exchange, [links.delete_link(link.name)])
    others = {b.link for b in desired.buckets} | {r.link for r in desired.redirects}
    indexes |= {name: _index_of(nl, name) for name in others - indexes.keys()}
    for bucket in desired.buckets:
        # Whoever has given the link another root has a use for it.
        nl.run([tc.set_bucket(bucket, indexes[bucket.link], new=True)])
        undo.callback(nl.exchange, [tc.delete_root(bucket.link, indexes[bucket.link])])
    nl.run([links.set_traits(link, up=True) for link in desired.links])
    for redirect in desired.redirects:
        name, index = redirect.link, indexes[redirect.link]
        nl.run([tc.add_ingress(name, index)], tolerate=_PRESENT)
        nl.run([tc.add_redirect(name, index, indexes[redirect.to])])
        undo.callback(nl.exchange, [tc.delete_first_filters(name, index)])


def lift_limits(nl: Netlink, desired: Space) -> list[str]:
    """Lift the limits of links that stay; the ifb devices that are to be deleted then.

    What was changed meanwhile is left, and a device with another mark. Raises KernelError.
    """
    present = {link.name: link for link in read_links(nl)}
    indexes = {name: link.index for name, link in present.items()}
    buckets, redirects = read_limits(nl, desired, indexes)
    messages = [
        tc.delete_first_filters(redirect.link, indexes[redirect.link])
        for redirect in redirects
        if redirect in desired.redirects or not redirect.to
    ]
    going = {link.name: link.alias for link in desired.links}
    messages += [
        tc.delete_root(bucket.link, indexes[bucket.link])
        for bucket in buckets
        if bucket in desired.buckets and bucket.link not in going
    ]
    nl.run(messages, tolerate=_NONE | links.GONE)
    here = [name for name in going if name in present]
    return [name for name in here if present[name].alias in (going[name], None)]


def _create_ifb(nl: Netlink, link: Link) -> int:
    """The index of the device, which is new. One that a killed ADD has left gives its place."""
    messages = [tc.create_ifb(link), links.get_link(link.name)]
    answers = nl.exchange(messages)
    if answers[0].errno == errno.EEXIST:
        there = read_link(nl, link.name)
        if there and there.kind == "ifb" and there.alias == link.alias:
            nl.exchange([links.delete_link(link.name)])
            answers = nl.exchange(messages)
    created, found = answers
    if created.errno:
        hint = _explain(created.errno, created.hint)
        raise KernelError(str(messages[0]), "", created.errno, hint)
    return links.parse_link(found.objects[0]).index


def _explain(code: int, hint: str) -> str:
    if code == errno.EEXIST:
        return "another attachment of the container to the network has it: only one can be limited"
    return "this kernel has no ifb devices (CONFIG_IFB)" if code == errno.EOPNOTSUPP else hint


def read_limits(
    nl: Netlink, desired: Space, indexes: Mapping[str, int]
) -> tuple[tuple[TokenBucket, ...], tuple[Redirect, ...]]:
    """The limits of the links that desired has some of. indexes: of all links, by name."""
    names = {indexes[b.link]: b.link for b in desired.buckets if b.link in indexes}
    roots = [m for m in nl.dump(tc.list_qdiscs()) if tc.root_of(m) in names] if names else []
    buckets = (tc.parse_bucket(message, names[tc.root_of(message)]) for message in roots)
    return (
        tuple(bucket for bucket in buckets if bucket),
        tuple(_read_redirects(nl, [r.link for r in desired.redirects], indexes)),
    )


def _read_redirects(
    nl: Netlink, names: Iterable[str], indexes: Mapping[str, int]
) -> Iterator[Redirect]:
    by_index = {index: name for name, index in indexes.items()}
    for name in names:
        filters = nl.dump(tc.list_filters(indexes[name])) if name in indexes else []
        targets = (tc.parse_redirect(message) for message in filters)
        target = next((t for t in targets if t is not None), None)
        if target is not None:
            yield Redirect(name, by_index.get(target, ""))


def repair_limits(nl: Netlink, changes: Sequence[Change[Noun]]) -> None:
    """Make the limits among these changes as desired; raises KernelError.

    An ifb device with another MAC is another one: it cannot be changed (drivers/net/ifb.c). What
    the new one needs besides is found by the next comparison.
    """
    for change in changes:
        link = change.desired
        if not isinstance(link, Link) or link.kind != "ifb":
            continue
        if change.concerns(["mac"]):
            nl.run([links.delete_link(link.name)], tolerate=links.GONE)
        if change.concerns(["mac"]) or change.observed is None:
            _create_ifb(nl, link)
            nl.run([links.set_traits(link, up=True)])
    for change in changes:
        if isinstance(change.desired, TokenBucket):
            _set_bucket(nl, change.desired)
        elif isinstance(change.desired, Redirect):
            _set_redirect(nl, change.desired)


def _set_bucket(nl: Netlink, bucket: TokenBucket) -> None:
    index = _index_of(nl, bucket.link)
    answer = nl.exchange([tc.set_bucket(bucket, index)])[0]
    if answer.errno == errno.EINVAL:
        # A root of another kind has the handle.
        nl.exchange([tc.delete_root(bucket.link, index)])
        nl.run([tc.set_bucket(bucket, index)])
    elif answer.errno:
        raise KernelError("set qdisc tbf of", bucket.link, answer.errno, answer.hint)


def _set_redirect(nl: Netlink, redirect: Redirect) -> None:
    name, target = redirect.link, _index_of(nl, redirect.to)
    index = _index_of(nl, name)
    nl.run([tc.add_ingress(name, index)], tolerate=_PRESENT)
    nl.run([tc.delete_first_filters(name, index)], tolerate=_NONE)
    nl.run([tc.add_redirect(name, index, target)])


def _index_of(nl: Netlink, name: str) -> int:
    link = read_link(nl, name)
    if link is None:
        raise KernelError("find link", name, errno.ENODEV)
    return link.index
