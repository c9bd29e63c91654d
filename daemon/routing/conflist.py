"""The node's CNI configuration, written from its pod CIDRs once the node is ready, and kept so.

It stays when the daemon ends: pods can still be attached and deleted without it. What a file with
podwire's mark has more than that are plugins that others appended (`plugin_list`).
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cni_plugin.config import DEFAULT_BRIDGE
from cni_plugin.host import DEFAULT_DATA_DIR
from daemon.config.schema import ConflistSettings, Settings
from daemon.files import explain, fresh_name, make_folder, open_regular, swap_file
from daemon.journal import Action
from daemon.model import Desired
from daemon.routing.plugin_list import (
    CHAINED,
    FILE_MAX,
    Conf,
    is_same,
    merge,
    parse_conf,
    render_conf,
)
from daemon.routing.reporter import Reporter
from ipam.ranges import build_range, interface_of
from kernel.model import Bridge, IPNetwork

MARK = "podwired"
_MARK_TEXT = (
    "written by podwired: plugins appended by others stay, other changes are undone; "
    "set `conflist` in podwired.yaml instead"
)
_CAPABILITIES = ("ips", "ipRanges", "mac", "dns", "aliases", "portMappings", "bandwidth")
_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
_READ_MAX = FILE_MAX + 1

_MODE = 0o644
_ROUNDS = 8
"""Times that a file is merged again because another program wrote it in the same instant."""
_SETTLED = 0.4
"""Seconds after which what is no configuration is replaced: not every writer renames."""
_AGAIN = 60.0
"""Seconds after which the same plugins, appended or removed by others, are reported again."""

Done = Literal["same", "new", "rewritten"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What had to be done with the file; others, dropped: see `Merged`."""

    done: Done
    others: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class NoConflist(Exception):
    """The file is no configuration: half written, or damaged."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content


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
    chained = [plugin.render() for plugin in settings.plugins]
    conf: Conf = {
        "cniVersion": settings.cni_version,
        "name": settings.name,
        MARK: _MARK_TEXT,
        "plugins": [_plugin(settings, prefixes, mtu, data_dir), *chained],
    }
    if chained:
        conf[CHAINED] = [plugin["type"] for plugin in chained]
    return render_conf(conf)


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
    if settings.non_masquerade_cidrs:
        plugin["nonMasqueradeCIDRs"] = list(map(str, settings.non_masquerade_cidrs))
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


def keep_conflist(path: Path, content: bytes, unreadable: bytes | None = None) -> Kept:
    """Make sure that the file has this content, and behind it the plugins that others appended.

    unreadable: what the file may have without being a configuration, to be replaced. Raises
    NoConflist where it has something else that is none, ForeignConflist where it is not podwire's,
    OSError.
    """
    own, observed = json.loads(content), _read(path)
    fresh_name(path).unlink(missing_ok=True)  # of a writer that was killed
    present = theirs = None if observed is None else _parse(path, observed, unreadable)
    done: Done = "new" if observed is None else "rewritten"
    for attempt in range(_ROUNDS):
        merged = merge(own, theirs or {})
        if is_same(merged.conf, present):
            return Kept(done if attempt or _open_to_all(path) else "same", merged.kept)
        make_folder(path.parent, 0o755)
        data = render_conf(merged.conf)
        replaced = swap_file(path, data, _MODE, _READ_MAX)
        if replaced in (observed, data):
            break
        # Another program's rename came between: what it wrote counts, and what it removed.
        observed, present, theirs = data, merged.conf, parse_conf(replaced or b"")
    return Kept(done, merged.kept, merged.dropped)


def describe_difference(settings: Settings, desired: Desired) -> str:
    """How the file is not as desired; empty where it is, or none is written. Changes nothing."""
    conflist = settings.conflist
    if conflist is None:
        return ""
    prefixes, path = desired.pod_cidrs, conflist.path
    content = render_conflist(conflist, prefixes, desired.pod_mtu, settings.data_dir)
    try:
        observed = _read(path)
        present = None if observed is None else _parse(path, observed, None)
    except NoConflist:
        return f"{path} is no CNI configuration: half written, or damaged"
    except (ForeignConflist, OSError) as error:
        return str(error)
    if present is None:
        return f"{path} is missing"
    same = is_same(merge(json.loads(content), present).conf, present)
    return "" if same else f"{path} is not as the daemon writes it"


def _parse(path: Path, observed: bytes, unreadable: bytes | None) -> Conf | None:
    """The configuration in the file; None where it is none, and known as such."""
    conf = parse_conf(observed)
    if conf is None and observed != unreadable:
        raise NoConflist(observed)
    if conf is not None and MARK not in conf:
        raise ForeignConflist(path, f'it has no key "{MARK}"')
    return conf


def _open_to_all(path: Path) -> bool:
    """Let every program read the file; whether it had another mode.

    Not by a new file: each of these an installer answers by writing its own.
    """
    with open_regular(path) as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) == _MODE:
            return False
        os.fchmod(file.fileno(), _MODE)
    return True


def remove_conflist(path: Path) -> bool:
    """Remove the file if it is podwire's; whether it was. Raises OSError.

    Behind a link podwire's may be somebody's copy: that is refused.
    """
    if path.is_symlink() and path.is_file() and network_of(path.resolve()) is not None:
        why = "a symbolic link to a CNI configuration of podwire: remove both by hand"
        raise OSError(f"{path} is {why}")
    if network_of(path) is None:
        return False
    path.unlink()
    fresh_name(path).unlink(missing_ok=True)
    return True


def network_of(path: Path) -> str | None:
    """The network's name in a file with podwire's mark; None of any other. Raises OSError."""
    try:
        conf = parse_conf(_read(path) or b"")
    except ForeignConflist:
        return None
    return str(conf.get("name", "")) if conf and MARK in conf else None


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


class ConflistReconciler:
    """Keeps the file as desired, and reports why it is not as the fault "conflist"."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._reporter, self._clock = settings, reporter, clock
        self._written = b""
        self._unreadable, self._since = b"", 0.0
        self._others: tuple[str, ...] = ()
        self._reported: dict[str, float] = {}

    def reconcile(self, desired: Desired) -> bool:
        """Write the file where it differs; whether it is as desired."""
        conflist = self._settings.conflist
        if conflist is None:
            return False
        path, prefixes, mtu = conflist.path, desired.pod_cidrs, desired.pod_mtu
        if self._written and not path.parent.is_dir():
            self._reporter.report_fault("conflist", _explain_folder(path.parent))
            return False
        content = render_conflist(conflist, prefixes, mtu, self._settings.data_dir)
        if content == self._written and self._reporter.pause_before(path):
            return False
        try:
            kept = keep_conflist(path, content, self._replaceable())
        except NoConflist as found:
            self._note_unreadable(found.content)
        except ForeignConflist as error:
            self._reporter.report_fault("conflist", str(error))
        except OSError as error:
            text = explain("the CNI configuration", path, error, "conflist.path")
            self._reporter.report_fault("conflist", text)
        else:
            self._reporter.report_fault("conflist", "")
            if kept.done != "same":
                self._report(path, kept, desired, content)
            self._report_others(f"file {path}", kept.others)
            self._written = content
            return True
        return False

    def _replaceable(self) -> bytes | None:
        return self._unreadable if self._clock() - self._since >= _SETTLED else None

    def _note_unreadable(self, content: bytes) -> None:
        if content != self._unreadable:
            self._unreadable, self._since = content, self._clock()

    def _report(self, path: Path, kept: Kept, desired: Desired, content: bytes) -> None:
        name, before = f"file {path}", "; ".join(kept.dropped)
        after = f"{' '.join(map(str, desired.pod_cidrs))} mtu {desired.pod_mtu}"
        if content == self._written:
            cause = "removed" if kept.done == "new" else "changed by others"
            self._reporter.report_repair(path, name, cause, before, after)
        else:
            action: Action = "added" if kept.done == "new" else "changed"
            self._reporter.report_change(action, name, "this node is ready", before, after)

    def _report_others(self, name: str, others: tuple[str, ...]) -> None:
        """Others' plugins that came or went, each once."""
        before, self._others = self._others, others
        for kind in Counter(others) - Counter(before):
            self._report_found(name, f"{kind} is appended by another program, and stays")
        for kind in Counter(before) - Counter(others):
            self._report_found(name, f"{kind} is no longer appended by another program")

    def _report_found(self, name: str, text: str) -> None:
        now = self._clock()
        self._reported = {t: at for t, at in self._reported.items() if now - at < _AGAIN}
        if text not in self._reported:
            self._reported[text] = now
            self._reporter.report_change("found", name, text)


def _explain_folder(folder: Path) -> str:
    # A watch is of a directory, not of its name (inotify(7)): a new one nobody would look into.
    how = "a runtime that watches it would not see a new one: restart the runtime, which makes it"
    return f"the folder {folder} was removed; {how}"
