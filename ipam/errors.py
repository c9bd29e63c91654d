"""What can go wrong in IPAM, as exceptions that carry a CNI error code.

Codes below 100 are those of the CNI specification (SPEC.md, section "Error"); from 100 on they
are podwire's own.
"""

from __future__ import annotations

from pathlib import Path

INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
RANGE_EXHAUSTED = 100
ADDRESS_TAKEN = 105


class IpamError(Exception):
    """An IPAM operation failed; `code`, `msg` and `details` are those of the CNI error object."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg


class ConfigError(IpamError):
    """A key of the configuration or a CNI argument is wrong; the message names key and value."""

    def __init__(self, msg: str, *, code: int = INVALID_CONFIG, details: str = "") -> None:
        super().__init__(code, msg, details)


class StoreError(IpamError):
    """The database at `path` cannot be used: permission, full disk, read-only, unknown version."""

    def __init__(self, path: Path, msg: str, details: str = "", *, code: int = IO_FAILURE) -> None:
        super().__init__(code, msg, details)
        self.path = path


class StoreBusy(StoreError):
    """Another process held the database for longer than the time-out; try again later."""

    def __init__(self, path: Path, msg: str, details: str = "") -> None:
        super().__init__(path, msg, details, code=TRY_AGAIN_LATER)


class StoreDamaged(StoreError):
    """The database is damaged; nothing was changed. `ipam.recovery.recover` rebuilds it."""


class AddressTaken(IpamError):
    """The requested address is held by another owner, or the owner holds a different one."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(ADDRESS_TAKEN, msg, details)


class AddressResting(IpamError):
    """Only addresses are left whose rest period is not over; one is free in `seconds`."""

    def __init__(self, msg: str, details: str = "", *, seconds: float) -> None:
        super().__init__(TRY_AGAIN_LATER, msg, details)
        self.seconds = seconds


class RangeExhausted(IpamError):
    """Every address of a range set is held."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(RANGE_EXHAUSTED, msg, details)
