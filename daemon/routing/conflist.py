"""The node's CNI configuration, written from its pod CIDRs once the node is ready, and kept so.

It stays when the daemon ends: pods can still be attached and deleted without it.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from cni_plugin.config import DEFAULT_BRIDGE
from cni_plugin.host import DEFAULT_DATA_DIR
from daemon.config.schema import ConflistSettings, Settings
from daemon.files import explain, make_folder, replace_file
from daemon.journal import Action
from daemon.model import Desired
from daemon.routing.reporter import Reporter
from ipam.ranges import build_range, interface_of
from kernel.model import Bridge, IPNetwork

MARK = "podwired"
_MARK_TEXT = "written by podwired, which undoes changes: set `conflist` in podwired.yaml instead"
_CAPABILITIES = ("ips", "ipRanges", "mac", "dns", "aliases", "portMappings")
_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
_READ_MAX = 1 << 20  # bytes; no configuration of podwire's is near

Kept = Literal["same", "new", "rewritten"]


class ForeignConflist(Exception):
    """The file in the conflist's place is not podwire's; it was left as it is."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return (
            f"{self.path} was left as it is: {self.why}; move it away, "
            "or set conflist.path in podwired.yaml"
        )


def render_conflist(
    settings: ConflistSettings,
    prefixes: Sequence[IPNetwork],
    mtu: int,
    data_dir: Path = DEFAULT_DATA_DIR,
) -> bytes:
    """The file's content. prefixes: the node's pod CIDRs; mtu: of pods' links, in bytes.

    A pod gets one address of each family: CIDRs of one family are one range set.
    """
    conf = {
        "cniVersion": settings.cni_version,
        "name": settings.name,
        MARK: _MARK_TEXT,
        "plugins": [_plugin(settings, prefixes, mtu, data_dir)],
    }
    return json.dumps(conf, indent=2).encode() + b"\n"


def _plugin(
    settings: ConflistSettings, prefixes: Sequence[IPNetwork], mtu: int, data_dir: Path
) -> dict[str, Any]:
    families = sorted({prefix.version for prefix in prefixes})
    ipam: dict[str, Any] = {"ranges": [_range_set(prefixes, family) for family in families]}
    plugin: dict[str, Any] = {
        "type": "podwire",
        "mode": settings.mode,
        "mtu": mtu,
        "ipMasq": settings.ip_masq,
        "capabilities": dict.fromkeys(_CAPABILITIES, True),
        "ipam": ipam,
    }
    if not settings.source_check:
        plugin["sourceCheck"] = False
    if settings.allowed_source_prefixes:
        plugin["allowedSourcePrefixes"] = list(map(str, settings.allowed_source_prefixes))
    if settings.mode == "bridge":
        plugin["isDefaultGateway"] = True  # which adds the default routes
    else:
        ipam["routes"] = [{"dst": _DEFAULT_ROUTES[family]} for family in families]
    if data_dir != DEFAULT_DATA_DIR:
        # A call that comes while no daemon runs must find the same store.
        ipam["dataDir"] = str(data_dir)
    return plugin


def bridge_of(settings: ConflistSettings, prefixes: Sequence[IPNetwork], mtu: int) -> Bridge | None:
    """The bridge of the file's content, with the gateways of its ranges; None in mode ptp."""
    if settings.mode != "bridge":
        return None
    found = [(build_range(prefix).gateway, prefix.prefixlen) for prefix in prefixes]
    gateways = tuple(interface_of(gateway, length) for gateway, length in found if gateway)
    return Bridge(DEFAULT_BRIDGE, mtu, gateways=gateways)


def _range_set(prefixes: Iterable[IPNetwork], family: int) -> list[dict[str, str]]:
    return [{"subnet": str(prefix)} for prefix in prefixes if prefix.version == family]


def keep_conflist(path: Path, content: bytes) -> Kept:
    """Make sure that the file has this content; what had to be done.

    Raises ForeignConflist where the file there is not podwire's, OSError.
    """
    observed = _read(path)
    if observed == content and stat.S_IMODE(path.stat().st_mode) == 0o644:
        return "same"
    if observed is not None and not _is_marked(observed):
        raise ForeignConflist(path, f'it has no key "{MARK}"')
    make_folder(path.parent, 0o755)
    replace_file(path, content, 0o644, durable=True)
    return "new" if observed is None else "rewritten"


def remove_conflist(path: Path) -> bool:
    """Remove the file if it is podwire's; whether it was. Raises OSError.

    Behind a link podwire's may be somebody's copy: that is refused.
    """
    if path.is_symlink() and path.is_file() and _is_marked(path.read_bytes()[:_READ_MAX]):
        why = "a symbolic link to a CNI configuration of podwire: remove both by hand"
        raise OSError(f"{path} is {why}")
    try:
        content = _read(path)
    except ForeignConflist:
        return False
    if content is None or not _is_marked(content):
        return False
    path.unlink()
    return True


def _read(path: Path) -> bytes | None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise ForeignConflist(path, f"it is {kind}")
    with open(path, "rb") as file:
        return file.read(_READ_MAX)


def _is_marked(content: bytes) -> bool:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and MARK in value


class ConflistReconciler:
    """Keeps the file as desired, and reports why it is not as the fault "conflist"."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._written = b""

    def reconcile(self, desired: Desired) -> None:
        """Write the file where it differs."""
        conflist = self._settings.conflist
        if conflist is None:
            return
        prefixes, mtu = desired.pod_cidrs, desired.pod_mtu
        content = render_conflist(conflist, prefixes, mtu, self._settings.data_dir)
        try:
            kept = keep_conflist(conflist.path, content)
        except ForeignConflist as error:
            self._reporter.report_fault("conflist", str(error))
        except OSError as error:
            text = explain("the CNI configuration", conflist.path, error, "conflist.path")
            self._reporter.report_fault("conflist", text)
        else:
            self._reporter.report_fault("conflist", "")
            if kept != "same":
                self._report(f"file {conflist.path}", kept, desired, content)
            self._written = content

    def _report(self, name: str, kept: Kept, desired: Desired, content: bytes) -> None:
        action: Action = "added" if kept == "new" else "changed"
        cause = "this node is ready"
        if content == self._written:
            action, cause = "restored", "removed" if kept == "new" else "changed by others"
            self._reporter.counts.note_repair(name, name)
        after = f"{' '.join(map(str, desired.pod_cidrs))} mtu {desired.pod_mtu}"
        self._reporter.report_change(action, name, cause, after=after)
