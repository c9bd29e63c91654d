"""stdin of a CNI call as a JSON object; what its keys mean is `config`'s."""

from __future__ import annotations

import json
from typing import Any

from cni_plugin.errors import DECODING_FAILURE, CniError

STDIN_MAX = 4 << 20  # bytes
_NESTING_MAX = 64


def decode(stdin: bytes) -> dict[str, Any]:
    """stdin as a JSON object. Raises code 6."""
    if not stdin.strip():
        raise CniError(DECODING_FAILURE, "the network configuration on stdin is empty")
    if len(stdin) > STDIN_MAX:
        msg = f"the network configuration on stdin is larger than {STDIN_MAX >> 20} MiB"
        raise CniError(DECODING_FAILURE, msg)
    try:
        value = json.loads(stdin.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CniError(DECODING_FAILURE, "the network configuration is not JSON", words) from error
    if not isinstance(value, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is not a JSON object")
    _check_nesting(value)
    _check_text(stdin, value)
    return canonical(value, ("cniVersion", "name", "ipam", "cni.dev/valid-attachments"))


def canonical(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The object with these keys in this spelling, for Go's decoder takes them in any case."""
    by_lower = {name.lower(): name for name in names}
    renamed = {
        by_lower[key.lower()]: item
        for key, item in value.items()
        if key not in names and key.lower() in by_lower
    }
    return {**renamed, **value} if renamed else value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _check_text(stdin: bytes, value: dict[str, Any]) -> None:
    # Half a character, such as \ud800 alone, is no text: neither a path nor an answer can hold it.
    if b"\\ud" in stdin.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            words = f"{error.object[error.start]!r} is no character"
            msg = "the network configuration is not JSON"
            raise CniError(DECODING_FAILURE, msg, words) from error


def _check_nesting(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(_NESTING_MAX):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise CniError(DECODING_FAILURE, "the network configuration is nested too deeply")


def _containers(parent: Any) -> list[Any]:
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]
