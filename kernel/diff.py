"""The one comparison of desired with observed state; pure.

CHECK, the daemon's reconcilers, cleanup and the operator's `diff` all decide on `Change` values.
`describe.py` renders them for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kernel.model import (
    Acceptance,
    Address,
    ChainRules,
    Element,
    FdbEntry,
    Link,
    Neighbour,
    Redirect,
    Route,
    Space,
    Sysctl,
    TokenBucket,
    Vxlan,
)

Noun = (
    Link | Address | Route | Neighbour | FdbEntry | Sysctl | Element | ChainRules | TokenBucket
    | Redirect | Acceptance
)  # fmt: skip
Key = tuple[object, ...]
"""What the kernel takes for one object: two nouns of one key replace each other."""

N = TypeVar("N", bound=Noun)
N_co = TypeVar("N_co", bound=Noun, covariant=True)

# Frames to a group address may go to several VTEPs; those to an unknown MAC go where MAC 0 leads.
_GROUP, _DEFAULT = frozenset("13579bdf"), "00:00:00:00:00:00"
_TRAITS: Mapping[type[Any], tuple[str, ...]] = {
    Route: ("link", "via", "mtu", "advmss", "src", "scope", "protocol", "onlink", "local"),
    Neighbour: ("mac",),
    FdbEntry: ("dst", "more"),
    Sysctl: ("value",),
    ChainRules: ("digests",),
    TokenBucket: ("rate", "buffer", "limit"),
    Redirect: ("to",),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One trait of an object that is not as desired."""

    trait: str
    desired: object
    observed: object


@dataclass(frozen=True, slots=True)
class Change(Generic[N_co]):
    """One object that is not as desired.

    desired is None for a stray, which should go; observed is None for an object that is missing.
    faults: where both are there, the traits that differ.
    """

    desired: N_co | None
    observed: N_co | None
    faults: tuple[Fault, ...] = ()

    @property
    def noun(self) -> N_co:
        """The object as desired, or the stray."""
        found = self.observed if self.desired is None else self.desired
        assert found is not None  # noqa: S101 - a change is about an object
        return found

    def concerns(self, traits: Iterable[str]) -> bool:
        """Whether one of these traits is at fault."""
        return any(fault.trait in traits for fault in self.faults)


def key_of(noun: Noun) -> Key:
    """What the kernel takes for the same object: a noun with this key would be replaced."""
    if isinstance(noun, Route):
        dst = noun.dst
        packed = dst.network_address.packed
        return ("route", packed, dst.prefixlen, noun.table, noun.priority)
    if isinstance(noun, Neighbour):
        return ("neighbour", noun.link, noun.address.packed)
    if isinstance(noun, FdbEntry):
        if noun.mac[1] in _GROUP or noun.mac == _DEFAULT:
            return ("fdb", noun.link, noun.mac, noun.dst.packed)
        return ("fdb", noun.link, noun.mac)
    if isinstance(noun, Link):
        return ("link", noun.name)
    if isinstance(noun, Address):
        return ("address", noun.link, noun.address)
    if isinstance(noun, ChainRules):
        return ("chain", noun.family, noun.chain)
    if isinstance(noun, TokenBucket):
        return ("root", noun.link)
    if isinstance(noun, Redirect):
        return ("redirect", noun.link)
    if isinstance(noun, Acceptance):
        return ("acceptance", noun)
    return ("element", noun) if isinstance(noun, Element) else ("sysctl", noun.path)


def by_key(nouns: Iterable[N]) -> dict[Key, N]:
    """The nouns by their keys; the last one of a key wins."""
    return {key_of(noun): noun for noun in nouns}


def diff(
    desired: Mapping[Key, N], observed: Mapping[Key, N], keys: Iterable[Key] | None = None
) -> Iterator[Change[N]]:
    """What differs of these keys (None: of all), in their order.

    With the keys of desired alone, what is there beyond it is no difference.
    """
    for key in {**desired, **observed} if keys is None else keys:
        change = compare(desired.get(key), observed.get(key))
        if change is not None:
            yield change


def compare(desired: N | None, observed: N | None) -> Change[N] | None:
    """The difference of one object; None where it is as desired.

    A link may leave traits open; everything else is compared as a whole, but a setting that is not
    required may be absent.
    """
    if desired is None or observed is None:
        optional = isinstance(desired, Sysctl) and not desired.required
        return None if optional or desired is observed else Change(desired, observed)
    if isinstance(desired, Link) and isinstance(observed, Link):
        faults = _link_faults(desired, observed)
    else:
        faults = _faults(_exact(desired, observed)) if desired != observed else ()
    return Change(desired, observed, faults) if faults else None


def diff_space(desired: Space, observed: Space) -> tuple[Change[Noun], ...]:
    """What a namespace lacks, or has otherwise, of a plan's share; it may hold more.

    Settings that are not required count for nothing here: they may be unwritable.
    """
    required = [setting for setting in desired.sysctls if setting.required]
    return (
        *_lacking(desired.links, observed.links),
        *_lacking(desired.addresses, observed.addresses),
        *_lacking_routes(desired.routes, observed.routes),
        *_lacking(desired.neighbours, observed.neighbours),
        *_lacking(required, observed.sysctls),
        *_lacking(desired.buckets, observed.buckets),
        *_lacking(desired.redirects, observed.redirects),
    )


def _lacking(desired: Iterable[N], observed: Iterable[N]) -> Iterator[Change[N]]:
    wanted = by_key(desired)
    return diff(wanted, by_key(observed), wanted)


def _lacking_routes(desired: Iterable[Route], observed: Sequence[Route]) -> Iterator[Change[Route]]:
    """Routes of a plan: numbers that it leaves open (0) may be any, the metric too."""
    by_destination: dict[object, list[Route]] = {}
    for route in observed:
        by_destination.setdefault((route.dst, route.table), []).append(route)
    for route in desired:
        there = by_destination.get((route.dst, route.table), ())
        faults = {other: _faults(_planned(route, other)) for other in there}
        nearest = min(there, key=lambda other: len(faults[other]), default=None)
        if nearest is None:
            yield Change(route, None)
        elif faults[nearest]:
            yield Change(route, nearest, faults[nearest])


_Row = tuple[str, object, object]
"""A trait, its desired value (None: any) and the observed one."""


def _faults(rows: Iterable[_Row]) -> tuple[Fault, ...]:
    return tuple(Fault(*row) for row in rows if row[1] != row[2])


def _exact(desired: Noun, observed: Noun) -> Iterator[_Row]:
    for trait in _TRAITS.get(type(desired), ()):
        yield trait, getattr(desired, trait), getattr(observed, trait)


def _planned(desired: Route, observed: Route) -> Iterator[_Row]:
    yield "link", desired.link, observed.link
    yield "via", desired.via, observed.via
    for number in ("priority", "mtu", "advmss"):
        value = getattr(desired, number)
        if value:
            yield number, value, getattr(observed, number)


def _link_faults(desired: Link, observed: Link) -> tuple[Fault, ...]:
    rows: tuple[_Row, ...] = (
        ("kind", desired.kind or None, observed.kind),
        ("up", desired.up or None, observed.up),
        ("mac", desired.mac or None, observed.mac),
        ("mtu", desired.mtu or None, observed.mtu),
        ("alias", desired.alias, observed.alias),
        ("promisc", desired.promisc or None, observed.promisc),
        ("arp", desired.arp, observed.arp),
        ("allmulti", desired.allmulti, observed.allmulti),
        ("queue_length", desired.queue_length, observed.queue_length),
        *_port_rows(desired, observed),
        *_vxlan_rows(desired, observed),
    )
    return _faults(row for row in rows if row[1] is not None)


def _port_rows(desired: Link, observed: Link) -> tuple[_Row, ...]:
    wanted, found = desired.port, observed.port
    if wanted is None:
        return ()
    bridge = found.bridge if found else ""
    if found is None or wanted.bridge != bridge:
        return (("master", wanted.bridge, bridge),)
    return (
        ("hairpin", wanted.hairpin, found.hairpin),
        ("isolation", wanted.isolated, found.isolated),
    )


def _vxlan_rows(desired: Link, observed: Link) -> Iterator[_Row]:
    wanted, found = desired.vxlan, observed.vxlan
    if wanted is None or desired.kind != observed.kind:
        return
    if found is None:
        yield "vxlan", wanted, None
        return
    for trait in Vxlan.__slots__:
        yield trait, getattr(wanted, trait), getattr(found, trait)
