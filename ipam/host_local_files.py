"""Reservations of the reference plugin `host-local` beside the store: read, written, released.

To release one, it reads every file of the folder, too (plugins/ipam/host-local/backend/disk/
backend.go, ReleaseByID).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ipam.errors import IO_FAILURE, AddressTaken, IpamError
from ipam.import_host_local import Reservation, host_local_stopped, read_directory
from ipam.ranges import IPAddress
from ipam.store import Store
from ipam.transaction import Owner, Transaction


def read_reservations(folder: str | Path, network: str) -> tuple[Reservation, ...]:
    """The reservations of a network; none where it has no folder. Raises IpamError."""
    directory = Path(folder, network)
    if not directory.is_dir():
        return ()
    return read_directory(directory, network)[0]


def list_networks(folder: str | Path) -> tuple[str, ...]:
    """The networks that have a folder. Raises IpamError."""
    try:
        return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot read {folder}", str(error)) from error


def release(
    folder: str | Path, network: str, is_over: Callable[[Owner], bool]
) -> tuple[Reservation, ...]:
    """Remove the reservations of attachments that are over; those that were. Raises IpamError.

    Of a file without interface, of an old version, the container is all that is known.
    """
    directory = Path(folder, network)
    if not directory.is_dir():
        return ()
    with host_local_stopped(directory):
        found = [r for r in read_directory(directory, network)[0] if is_over(r.owner)]
        for reservation in found:
            with suppress(FileNotFoundError):
                (directory / str(reservation.address)).unlink()
    return tuple(found)


def adopt(tx: Transaction, directory: Path, asking: Owner) -> None:
    """Allocate the addresses reserved in a network's folder to those who have them.

    Also one just given to `asking`, of whose network all are from then on, whatever the folder's
    name is. What other attachments have here stays theirs. Raises IpamError, StoreError.
    """
    for reservation in read_reservations(directory.parent, directory.name):
        owner = replace(reservation.owner, network=asking.network)
        holder = tx.owner_of(owner.network, reservation.address)
        if holder in (None, asking) and holder != owner:
            tx.adopt(owner, reservation.address)


def export(store: Store, directory: Path, network: str | None = None) -> tuple[int, int]:
    """Write a reservation for each address of a network; how many were written, and were there.

    The network's name is the folder's unless given. Raises AddressTaken that names every conflict
    (then nothing was written), IpamError with code 5 if the folder cannot be written.
    """
    name = network or directory.absolute().name
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # No ADD of podwire's meanwhile, and none of host-local's.
        with store.transaction() as tx, host_local_stopped(directory):
            held = {r.address: r.owner for r in read_directory(directory, name)[0]}
            found = tx.allocations(name)
            _check_conflicts({a.address: a.owner for a in found}, held)
            fresh = [a for a in found if a.address not in held]
            for allocation in fresh:
                owner = allocation.owner
                content = f"{owner.container_id}\r\n{owner.ifname}".encode()
                _write(directory / str(allocation.address), content)
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot write {directory}", str(error)) from error
    return len(fresh), len(found) - len(fresh)


def _check_conflicts(here: dict[IPAddress, Owner], there: dict[IPAddress, Owner]) -> None:
    both = here.keys() & there.keys()
    conflicts = [
        f"{a} is {here[a]}'s here, {there[a]}'s there" for a in both if here[a] != there[a]
    ]
    if conflicts:
        msg = f"{len(conflicts)} addresses are reserved for others already; nothing was written"
        raise AddressTaken(msg, "; ".join(sorted(conflicts)))


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
