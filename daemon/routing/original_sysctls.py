"""What settings were before podwire changed them, so that its removal sets them back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daemon.files import make_folder, open_regular, replace_file
from ipam.boot import read_boot_id
from kernel.model import Sysctl
from kernel.sysctl import apply_sysctl, read_sysctl

NOTED = re.compile(
    r"net/ipv[46]/(ip_forward|conf/(?!\.{1,2}/)[^/\s]{1,15}/(forwarding|accept_ra))", re.ASCII
)
"""Settings that outlast podwire's own device; one more that it changes must match."""
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Original:
    """A setting's value before podwire, and the one that podwire gave it."""

    before: str
    ours: str


def note_originals(file: Path, settings: Iterable[Sysctl]) -> None:
    """Save the values of settings that are about to be changed. Raises OSError, IpamError.

    The first value that was saved since this node's namespace exists is kept.
    """
    known = load_originals(file)
    found = ((s, read_sysctl(s.path)) for s in settings if NOTED.fullmatch(s.path))
    new = {
        s.path: Original(value, s.value)
        for s, value in found
        if value is not None and s.path not in known
    }
    # A link's own forwarding, though as needed, goes when the node's is set back.
    if any(setting.before != setting.ours for setting in new.values()):
        make_folder(file.parent)
        replace_file(file, render_originals({**known, **new}, _namespace()), 0o600, durable=True)


def load_originals(file: Path) -> Mapping[str, Original]:
    """What was saved of this node's namespace by path; nothing of a file that cannot be read.

    A reboot, and the restart of a node that is a container, begin with the kernel's values.
    """
    try:
        with open_regular(file) as content:
            return parse_originals(content.read(_LONGEST), _namespace())
    except OSError:
        return {}


def render_originals(settings: Mapping[str, Original], namespace: str) -> bytes:
    """The file's content."""
    values = {path: [s.before, s.ours] for path, s in settings.items()}
    return json.dumps({"namespace": namespace, "settings": values}, indent=1).encode()


def parse_originals(data: bytes, namespace: str) -> dict[str, Original]:
    """What `render_originals` made of them for this namespace; else nothing."""
    try:
        raw = json.loads(data)
        settings = raw["settings"].items() if raw["namespace"] == namespace else ()
        found = {path: Original(before, ours) for path, (before, ours) in settings}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return found if all(map(_is_sound, found, found.values())) else {}


def _is_sound(path: str, setting: Original) -> bool:
    values = (setting.before, setting.ours)
    return bool(NOTED.fullmatch(path)) and all(
        isinstance(v, str) and v.isascii() and v.isdigit() and len(v) < 4 for v in values
    )


def restore_originals(file: Path) -> Iterator[tuple[Sysctl, str]]:
    """Set back what has podwire's value yet; yields each that differed, and its value.

    Raises KernelError, OSError, IpamError. What was saved is forgotten then.
    """
    saved = load_originals(file)
    # Forwarding of the node is forwarding of each link: what is still podwire's is seen before.
    ours = [path for path, setting in saved.items() if read_sysctl(path) == setting.ours]
    for path in sorted(ours, key=_rank):
        setting = Sysctl(path, saved[path].before)
        apply_sysctl(setting)
        if saved[path].before != saved[path].ours:
            yield setting, saved[path].ours
    with suppress(FileNotFoundError):
        file.unlink()
        with suppress(OSError):  # unless it has the store
            file.parent.rmdir()


def _rank(path: str) -> tuple[bool, bool, str]:
    """The node's before its links'; a router that takes no advertisements loses what it took."""
    return path.endswith("accept_ra"), "/conf/" in path and "/all/" not in path, path


def _namespace() -> str:
    return f"{read_boot_id()} {os.stat('/proc/thread-self/ns/net').st_ino}"
