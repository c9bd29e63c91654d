"""The pure comparison of what should be with what is."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.model import Address, Element, Link, Route, Space, Sysctl

Noun = Link | Address | Route | Sysctl | Element


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. have is None where the wanted object is missing; text says it to a person."""

    want: Noun
    have: Noun | None
    text: str


def diff(want: Space, have: Space, where: str) -> tuple[Change, ...]:
    """What is missing or wrong in have; what it holds beyond want is no difference.

    where: how the namespace is called in the texts ("pod", "node").
    """
    return (
        *_diff_links(want, have, where),
        *_diff_addresses(want, have, where),
        *_diff_routes(want, have, where),
        *_diff_sysctls(want, have, where),
    )


def _diff_links(want: Space, have: Space, where: str) -> list[Change]:
    found = {link.name: link for link in have.links}
    changes = []
    for link in want.links:
        other = found.get(link.name)
        if other is None:
            changes.append(Change(link, None, f"link {link.name} is missing in the {where}"))
        else:
            faults = _link_faults(link, other)
            changes += [Change(link, other, f"link {link.name} in the {where} {f}") for f in faults]
    return changes


def _link_faults(want: Link, have: Link) -> list[str]:
    faults = []
    if want.kind != have.kind:
        faults.append(f"is a {have.kind or 'physical device'}, not a {want.kind}")
    if want.up and not have.up:
        faults.append("is down")
    if want.mac and want.mac != have.mac:
        faults.append(f"has MAC {have.mac}, not {want.mac}")
    if want.mtu and want.mtu != have.mtu:
        faults.append(f"has MTU {have.mtu}, not {want.mtu}")
    return faults + _port_faults(want, have)


def _port_faults(want: Link, have: Link) -> list[str]:
    if want.port is None:
        return []
    if have.port is None:
        return [f"is not a port of bridge {want.port.bridge}"]
    if want.port.bridge != have.port.bridge:
        return [f"has master {have.port.bridge}, not {want.port.bridge}"]
    flags = (
        ("hairpin", want.port.hairpin, have.port.hairpin),
        ("isolation", want.port.isolated, have.port.isolated),
    )
    state = {True: "on", False: "off"}
    return [f"has {n} {state[h]}, not {state[w]}" for n, w, h in flags if w != h]


def _diff_addresses(want: Space, have: Space, where: str) -> list[Change]:
    found = {(a.link, a.address) for a in have.addresses}
    return [
        Change(a, None, f"address {a.address} is missing on {a.link} in the {where}")
        for a in want.addresses
        if (a.link, a.address) not in found
    ]


def _diff_routes(want: Space, have: Space, where: str) -> list[Change]:
    changes = []
    for route in want.routes:
        same = [r for r in have.routes if (r.dst, r.table) == (route.dst, route.table)]
        if any(_goes_as(route, r) for r in same):
            continue
        if same:
            is_ = f"goes {_path(same[0], route)}, not {_path(route, route)}"
            changes.append(Change(route, same[0], f"route {route.dst} in the {where} {is_}"))
        else:
            text = f"route {route.dst} {_path(route, route)} is missing in the {where}"
            changes.append(Change(route, None, text))
    return changes


def _goes_as(want: Route, have: Route) -> bool:
    """Whether a route leads where it should; numbers that the plan leaves open may be any."""
    numbers = (
        (want.priority, have.priority),
        (want.mtu, have.mtu),
        (want.advmss, have.advmss),
    )
    same_way = (want.link, want.via) == (have.link, have.via)
    return same_way and all(w in (0, h) for w, h in numbers)


def _path(route: Route, want: Route) -> str:
    """A route's way, with the numbers that the plan names."""
    numbers = (
        ("metric", route.priority, want.priority),
        ("mtu", route.mtu, want.mtu),
        ("advmss", route.advmss, want.advmss),
    )
    more = "".join(f" {name} {value}" for name, value, wanted in numbers if wanted)
    via = f"via {route.via} " if route.via else ""
    return f"{via}dev {route.link}{more}"


def _diff_sysctls(want: Space, have: Space, where: str) -> list[Change]:
    found = {setting.path: setting for setting in have.sysctls}
    return [
        Change(s, found.get(s.path), f"{s.path} in the {where} is not {s.value}")
        for s in want.sysctls
        if s.required and (s.path not in found or found[s.path].value != s.value)
    ]
