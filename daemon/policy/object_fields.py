"""Fields of objects as Kubernetes writes them, checked: others wrote what they hold."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_TEXT_MAX = 65536
_ITEMS_MAX = 100_000
_NOTHING: Mapping[str, Any] = {}


class UnusableField(ValueError):
    """A field that cannot be used; the message names it and its value."""

    def __init__(self, key: str, value: object, why: str) -> None:
        super().__init__(f"{key} {reprlib.repr(value)} {why}")


def mapping_of(value: Any, key: str, known: Collection[str] = ()) -> Mapping[str, Any]:
    """A mapping; None is an empty one. known: the only keys it may have. Raises UnusableField.

    A key that this version does not know may limit what the others allow.
    """
    if value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise UnusableField(key, value, "must be a mapping")
    unknown = next((name for name in value if known and name not in known), None)
    if unknown is not None:
        raise UnusableField(f"{key}.{unknown}", value[unknown], "is not known to podwire")
    return value


def sequence_of(value: Any, key: str) -> Sequence[Any]:
    """A list; None is an empty one. Raises UnusableField."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise UnusableField(key, value, "must be a list")
    if len(value) > _ITEMS_MAX:
        raise UnusableField(key, len(value), f"items are more than {_ITEMS_MAX}")
    return value


def text_of(value: Any, key: str, *, empty: bool = False) -> str:
    """A text. Raises UnusableField."""
    if not isinstance(value, str) or not (value or empty):
        raise UnusableField(key, value, "must be a text")
    if len(value) > _TEXT_MAX:
        raise UnusableField(key, value, f"is longer than {_TEXT_MAX} characters")
    return value
