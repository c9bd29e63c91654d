"""Acceptance of pods' addresses by the filters of other programs: firewalld's, or iptables'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from kernel import firewalld, iptables
from kernel.diff import Change
from kernel.errors import KernelError
from kernel.model import Acceptance, IPAddress

IPTABLES, FIREWALLD = "iptables", "firewalld"


def accept(desired: Acceptance) -> None:
    """Let the node's filters accept the addresses, or change nothing. Raises KernelError."""
    try:
        if _is_by_firewalld(desired):
            for address in desired.addresses:
                firewalld.add_source(desired.zone, address)
        else:
            iptables.accept(desired.addresses, desired.admin_chain)
    except BaseException:
        with suppress(KernelError):
            withdraw(desired)
        raise


def withdraw(accepted: Acceptance) -> None:
    """Undo it, whichever of both did it; what is gone already is no error. Raises KernelError."""
    if accepted.backend != IPTABLES and firewalld.is_running():
        for address in accepted.addresses:
            with suppress(KernelError):  # firewalld was reloaded since, which forgets it
                firewalld.remove_source(accepted.zone, address)
    if accepted.backend != FIREWALLD:
        iptables.withdraw(accepted.addresses, accepted.admin_chain)


def acceptance_changes(desired: Acceptance) -> Iterator[Change[Acceptance]]:
    """What is missing of it. Raises KernelError."""
    missing = tuple(_missing(desired))
    if missing:
        yield Change(replace(desired, addresses=missing), None)


def _missing(desired: Acceptance) -> list[IPAddress]:
    if not _is_by_firewalld(desired):
        return iptables.not_accepted(desired.addresses, desired.admin_chain)
    present = firewalld.read_sources(desired.zone)
    return [a for a in desired.addresses if firewalld.source_of(a) not in present]


def _is_by_firewalld(desired: Acceptance) -> bool:
    return desired.backend == FIREWALLD or (not desired.backend and firewalld.is_running())
