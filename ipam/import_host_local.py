"""Taking over the reservations of the reference plugin `host-local`.

It keeps a file per address in a folder per network; the file's name is the address, its content
`container ID`, CR LF, `interface` (plugins/ipam/host-local/backend/disk/backend.go). Versions
before 0.7 wrote the container ID alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipam.errors import IO_FAILURE, AddressTaken, IpamError, StoreBusy, from_os
from ipam.json_section import parse_address
from ipam.ranges import IPAddress
from ipam.store import Store
from ipam.transaction import Owner, Transaction

LOCK_TIMEOUT = 10.0
LARGEST_FILE = 4096
DEFAULT_IFNAME = "eth0"
CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")  # SPEC.md, CNI_CONTAINERID
IFNAME = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}")  # net/core/dev.c, dev_valid_name


@dataclass(frozen=True, slots=True)
class Reservation:
    """An address that host-local gave out; `note` says what is unusual about its file."""

    address: IPAddress
    owner: Owner
    note: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file without a reservation, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: addresses taken over, those that the store had, and files skipped."""

    network: str
    taken: tuple[Reservation, ...]
    known: tuple[Reservation, ...]
    skipped: tuple[Skipped, ...]


def import_directory(store: Store, directory: Path, network: str | None = None) -> Imported:
    """Reserve in the store the addresses of host-local's folder, in one transaction; repeatable.

    The network's name is the folder's unless given. Raises AddressTaken that names every
    conflict (then nothing was changed), IpamError with code 5 if the folder cannot be read.
    """
    name = network or directory.resolve().name
    with host_local_stopped(directory), store.transaction() as tx:
        booted_at = store.clock.wall() - store.clock.uptime()
        found, skipped = read_directory(directory, name, booted_at)
        _check_conflicts(tx, found)
        taken = tuple(r for r in found if tx.owner_of(name, r.address) is None)
        for reservation in taken:
            tx.reserve(reservation.owner, reservation.address)
    return Imported(name, taken, tuple(r for r in found if r not in taken), skipped)


def _check_conflicts(tx: Transaction, reservations: tuple[Reservation, ...]) -> None:
    conflicts = []
    for reservation in reservations:
        holder = tx.owner_of(reservation.owner.network, reservation.address)
        if holder not in (None, reservation.owner):
            conflicts.append(
                f"{reservation.address} is {holder}'s here, {reservation.owner}'s there"
            )
    if conflicts:
        raise AddressTaken(
            f"{len(conflicts)} addresses are allocated to others already; nothing was taken over",
            "; ".join(conflicts),
        )


@contextmanager
def host_local_stopped(directory: Path) -> Iterator[None]:
    """Hold host-local's own lock (flock on `lock`), so that it changes nothing meanwhile."""
    path = directory / "lock"
    if not path.exists():
        yield
        return
    from filelock import FileLock, Timeout  # no other command needs it

    lock = FileLock(path, LOCK_TIMEOUT, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreBusy(path, f"{path} is locked", f"waited {LOCK_TIMEOUT:g} s") from error
    except OSError as error:
        raise from_os(path, error) from error
    try:
        yield
    finally:
        lock.release()


def read_directory(
    directory: Path, network: str, booted_at: float = 0
) -> tuple[tuple[Reservation, ...], tuple[Skipped, ...]]:
    """Read host-local's files; IpamError with code 5 if the folder cannot be read.

    Files older than `booted_at` (seconds since 1970) get a note: host-local keeps what a pod
    had when the machine went down. They count all the same, as the clock may have been wrong.
    """
    reservations: dict[IPAddress, Reservation] = {}
    skipped = []
    try:
        for path in sorted(directory.iterdir()):
            if path.name == "lock" or path.name.startswith("last_reserved_ip."):
                continue
            try:
                reservation = _read_file(path, network, booted_at)
                first = reservations.setdefault(reservation.address, reservation)
                if first is not reservation:
                    raise ValueError(f"another file gives {first.address} to {first.owner}")
            except ValueError as error:
                skipped.append(Skipped(path, str(error)))
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot read {directory}", str(error)) from error
    return tuple(reservations.values()), tuple(skipped)


def _read_file(path: Path, network: str, booted_at: float) -> Reservation:
    """One reservation; ValueError with the reason where the file is none."""
    address = _address_of(path.name)
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE} bytes")
    container_id, ifname = _parse_content(content.decode("utf-8"))
    notes = [] if ifname else [f"no interface in the file, taken as {DEFAULT_IFNAME}"]
    if path.stat().st_mtime < booted_at:
        notes.append("written before this boot, probably leaked")
    owner = Owner(network, container_id, ifname or DEFAULT_IFNAME)
    return Reservation(address, owner, "; ".join(notes))


def _address_of(name: str) -> IPAddress:
    """The address in a file name; Windows writes `_` for `:`."""
    try:
        return parse_address(name.replace("_", ":"))
    except ValueError:
        raise ValueError("the name is not an address") from None


def _parse_content(text: str) -> tuple[str, str]:
    """Container ID and interface, which old versions left out (empty then)."""
    container_id, *rest = text.strip().splitlines() or [""]
    if not container_id:
        raise ValueError("empty: no container ID")
    if not CONTAINER_ID.fullmatch(container_id):
        raise ValueError(f"{container_id!r} is not a container ID")
    if len(rest) > 1 or not all(IFNAME.fullmatch(line) for line in rest):
        raise ValueError(f"{rest!r} is not an interface name")
    return container_id, rest[0] if rest else ""
