"""Errors of files that podwired writes, in words: which file it is, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_HINTS = {
    errno.EROFS: "remount it writable, or set {key} in podwired.yaml to a place that is",
    errno.ENOSPC: "free some space there, or set {key} in podwired.yaml to another place",
    errno.EDQUOT: "free some space there, or set {key} in podwired.yaml to another place",
    errno.EACCES: "podwired must run as root; see whether a security module forbids it",
    errno.EPERM: "podwired must run as root; see whether something is immutable there (lsattr)",
    errno.ENOTDIR: "something on the way to it is no folder: move that away, or set {key}",
    errno.EISDIR: "a folder is in its place: move that away, or set {key}",
}
_OTHER = "podwire tries again; set {key} in podwired.yaml to another place if it stays"


def explain(what: str, path: Path, error: OSError, key: str) -> str:
    """Why a file cannot be written. what: what it is for; key: of podwired.yaml, where it is."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = _HINTS.get(error.errno or 0, _OTHER).format(key=f"`{key}`")
    return f"{what} {path} cannot be written: {reason}; {hint}"
