"""Reservations of the reference plugin `host-local`: read, written, released, taken over.

It keeps a file per address in a folder per network; the file's name is the address, its content
`container ID`, CR LF, `interface`. Versions before 0.7 wrote the container ID alone. To release
one, it reads every file of the folder, too (plugins/ipam/host-local/backend/disk/backend.go).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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


def withdraw(folder: str | Path, address: IPAddress, container_id: str) -> list[Path]:
    """Remove a container's reservations of an address, in networks of any name; their files.

    An ADD that met one would allocate the address to the container again. Raises IpamError.
    """
    removed: list[Path] = []
    for network in list_networks(folder):
        directory = Path(folder, network)
        file = directory / str(address)
        if file.exists():
            with host_local_stopped(directory), suppress(FileNotFoundError):
                found = {r.address: r.owner for r in read_directory(directory, network)[0]}
                if address in found and found[address].container_id == container_id:
                    file.unlink()
                    removed.append(file)
    return removed


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


def import_directory(store: Store, directory: Path, network: str | None = None) -> Imported:
    """Reserve in the store the addresses of host-local's folder, in one transaction; repeatable.

    The network's name is the folder's unless given. Raises AddressTaken that names every
    conflict (then nothing was changed), IpamError with code 5 if the folder cannot be read.
    """
    name = network or directory.resolve().name
    with host_local_stopped(directory), store.transaction() as tx:
        booted_at = store.clock.wall() - store.clock.uptime()
        found, skipped = read_directory(directory, name, booted_at)
        here = {a.address: a.owner for a in tx.allocations(name)}
        done = "allocated to others already; nothing was taken over"
        _refuse_conflicts(here, {r.address: r.owner for r in found}, done)
        taken = tuple(r for r in found if r.address not in here)
        for reservation in taken:
            tx.reserve(reservation.owner, reservation.address)
    return Imported(name, taken, tuple(r for r in found if r not in taken), skipped)


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
            here = {a.address: a.owner for a in tx.allocations(name)}
            there = {r.address: r.owner for r in read_directory(directory, name)[0]}
            _refuse_conflicts(here, there, "reserved for others already; nothing was written")
            fresh = {address: owner for address, owner in here.items() if address not in there}
            for address, owner in fresh.items():
                content = f"{owner.container_id}\r\n{owner.ifname}".encode()
                _write(directory / str(address), content)
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot write {directory}", str(error)) from error
    return len(fresh), len(here) - len(fresh)


def _refuse_conflicts(
    here: Mapping[IPAddress, Owner], there: Mapping[IPAddress, Owner], done: str
) -> None:
    conflicts = [
        f"{address} is {here[address]}'s here, {owner}'s there"
        for address, owner in there.items()
        if here.get(address, owner) != owner
    ]
    if conflicts:
        raise AddressTaken(f"{len(conflicts)} addresses are {done}", "; ".join(sorted(conflicts)))


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)


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
