"""Reservations that the reference plugin `host-local` left, released for attachments that end.

It would read every file of the folder itself (plugins/ipam/host-local/backend/disk/backend.go,
ReleaseByID).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ipam.import_host_local import Reservation, host_local_stopped, read_directory
from ipam.transaction import Owner


def read_reservations(folder: Path, network: str) -> tuple[Reservation, ...]:
    """The reservations of a network; none where it has no folder. Raises IpamError."""
    directory = folder / network
    if not directory.is_dir():
        return ()
    return read_directory(directory, network)[0]


def release(
    folder: Path, network: str, is_over: Callable[[Owner], bool]
) -> tuple[Reservation, ...]:
    """Remove the reservations of attachments that are over; those that were. Raises IpamError.

    Of a file without interface, of an old version, the container is all that is known.
    """
    directory = folder / network
    if not directory.is_dir():
        return ()
    with host_local_stopped(directory):
        found = [r for r in read_directory(directory, network)[0] if is_over(r.owner)]
        for reservation in found:
            with suppress(FileNotFoundError):
                (directory / str(reservation.address)).unlink()
    return tuple(found)
