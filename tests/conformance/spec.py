"""Facts of the CNI specification that the tests share."""

from __future__ import annotations

from collections.abc import Iterable

# SPEC "Released versions".
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

# SPEC 1.1.0 section 5 "Error"; 0-99 are reserved, 100 and above belong to the plugin.
ERROR_CODES = frozenset({1, 2, 3, 4, 5, 6, 7, 11, 50, 51})

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODE_FAILURE = 6
INVALID_CONFIG = 7
TRY_AGAIN = 11

# The specification version that introduced each verb; the rest are as old as 0.1.0.
INTRODUCED = {"VERSION": "0.2.0", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def order(version: str) -> tuple[int, ...]:
    """Sort key of a released version."""
    return tuple(int(part) for part in version.split("."))


def at_least(version: str, floor: str) -> bool:
    return order(version) >= order(floor)


def supporting(verb: str, versions: Iterable[str]) -> tuple[str, ...]:
    """The versions whose specification has *verb*."""
    return tuple(v for v in versions if at_least(v, INTRODUCED.get(verb, "0.1.0")))


def lacking(verb: str, versions: Iterable[str]) -> tuple[str, ...]:
    """The versions whose specification does not know *verb*."""
    return tuple(v for v in versions if not at_least(v, INTRODUCED.get(verb, "0.1.0")))


def code_is_legal(code: object) -> bool:
    """Whether *code* is well-known or the plugin's own (100 and above)."""
    return type(code) is int and (code in ERROR_CODES or code >= 100)
