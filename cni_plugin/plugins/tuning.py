"""Settings and traits of the pod's link: the keys of the reference `tuning`.

In a chain they are `sysctl`, `mac`, `mtu`, `promisc`, `allmulti` and `txQLen`. A native
configuration has the same but `mac` and `mtu`, which the pair of links is made with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_plugin.config import MAC
from cni_plugin.errors import INVALID_CONFIG, IO_FAILURE, CniError
from cni_plugin.result import canonical_mac
from ipam.errors import ConfigError
from ipam.json_section import Section
from kernel.model import Link, Piece, Space, Sysctl

if TYPE_CHECKING:
    from cni_plugin.host import Call
    from cni_plugin.result import Result
    from kernel.model import Plan
    from kernel.netlink.socket import Netlink

ALLOWLIST = Path("/etc/cni/tuning/allowlist.conf")
"""Regular expressions, one a line: settings that none matches are refused. Missing: all are free.

Each is searched for in the name as the configuration has it (with `IFNAME`).
"""
DATA_DIR = "/run/cni/tuning"
"""Where the reference plugin notes what a link had before."""
_LONGEST = 65536  # bytes of a file
_NAME = re.compile(r"[!-~]{1,256}\Z")
# What Go's regular expressions have and Python's have not, or as something else.
_GO_ONLY = re.compile(r"\[\[:|\\[pPQEzC]|\(\?[a-zA-Z]*U")


@dataclass(frozen=True, slots=True)
class TuningConf:
    """What a link gets. settings: (name, value) as configured; mtu: 0 leaves it."""

    settings: tuple[tuple[str, str], ...] = ()
    mac: str = ""
    mtu: int = 0
    promisc: bool = False
    allmulti: bool | None = None
    queue_length: int | None = None


def parse(conf: Section, mac: str = "") -> TuningConf:
    """The keys of a chained configuration; those in args.cni outrank the others.

    mac: that of CNI_ARGS, which outranks the configuration's. Raises ConfigError.
    """
    args, runtime = conf.section("args").section("cni"), conf.section("runtimeConfig")
    places = (args, runtime, Section("CNI_ARGS", {"MAC": mac}), conf)
    return replace(
        parse_native(conf),
        mac=_first(_mac(place) for place in places) or "",
        mtu=_first(place.integer("mtu") for place in (args, conf)) or 0,
    )


def parse_native(conf: Section) -> TuningConf:
    """The keys of a native configuration, and those in args.cni. Raises ConfigError."""
    args = conf.section("args").section("cni")
    return TuningConf(
        settings=_settings(conf, args),
        promisc=_first(place.boolean("promisc") for place in (args, conf)) or False,
        allmulti=_first(place.boolean("allmulti") for place in (args, conf)),
        queue_length=_first(place.integer("txQLen") for place in (args, conf)),
    )


def _first(values: Iterator[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _mac(place: Section) -> str | None:
    text = place.string("mac")
    if not text:
        return None
    if not MAC.fullmatch(text):
        raise place.fail("mac", text, "a MAC address like 02:11:22:33:44:55")
    return canonical_mac(text)


def _settings(conf: Section, args: Section) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for place in (conf.section("sysctl"), args.section("sysctl")):
        for name in place.values:
            if not _NAME.match(name) or not _path_of(name, "IFNAME").startswith("net/"):
                shown = f"{place.path}: {name[:80]!r}"
                raise ConfigError(f"{shown} is no setting below net, like net.ipv4.conf.IFNAME.log")
            found[name] = _value(place, name)
    paths = [_path_of(name, "IFNAME") for name in found]
    for name, path in zip(found, paths, strict=True):
        if paths.count(path) > 1:
            raise ConfigError(f"sysctl: {name!r} is there twice, in two spellings")
    return tuple(found.items())


def _value(place: Section, name: str) -> str:
    value = place.values[name]
    if not isinstance(value, str) or not value.replace("\t", " ").isprintable():
        raise place.fail(name, value, "a string of one line")
    return " ".join(value.split())


def _path_of(name: str, ifname: str) -> str:
    """Below /proc/sys. Each dot divides, so no part of it can be `..`; the link's name may have
    dots."""
    parts = name.replace(".", "/").replace("IFNAME", ifname, 1).split("/")
    return "/".join(filter(None, parts))


def _piece(conf: TuningConf, ifname: str) -> Piece | None:
    traits = Link(
        ifname,
        kind="",
        mac=conf.mac or None,
        mtu=conf.mtu or None,
        up=False,
        promisc=conf.promisc,
        allmulti=conf.allmulti,
        queue_length=conf.queue_length,
    )
    changed = traits != Link(ifname, kind="", up=False)
    settings = tuple(Sysctl(_path_of(name, ifname), value) for name, value in conf.settings)
    if not changed and not settings:
        return None
    return Piece("tuning", pod=Space((traits,) if changed else (), sysctls=settings))


def plan_piece(call: Call, _nl: Netlink, _previous: Result) -> Piece | None:
    """The piece of a chain's attachment. Raises CniError, ConfigError."""
    conf = parse(Section("", call.parsed.raw), call.request.args.get("MAC", ""))
    if call.request.command == "ADD":
        if conf.settings:
            _refuse_duplicates(call.stdin)
        _require_allowed(conf)
    return _piece(conf, call.request.ifname)


def native_piece(conf: TuningConf, plan: Plan) -> Piece | None:
    """The piece of a native attachment. Raises CniError."""
    _require_allowed(conf)
    return _piece(conf, plan.pod.links[0].name)


def _refuse_duplicates(stdin: bytes) -> None:
    """Two settings of one name: which of them holds is left to chance by the reference's order."""
    top = json.loads(stdin, object_pairs_hook=tuple)
    for key, value in top:
        names = [name for name, _value in value] if key.lower() == "sysctl" and value else []
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise CniError(INVALID_CONFIG, f"sysctl: {twice!r} is there twice")


def _require_allowed(conf: TuningConf) -> None:
    allowed = _read_allowlist(ALLOWLIST) if conf.settings else None
    if allowed is None:
        return
    for name, _value in conf.settings:
        if not any(pattern.search(name) for pattern in allowed):
            msg = f"sysctl: {name!r} is not allowed on this node"
            shown = ", ".join(pattern.pattern for pattern in allowed)
            raise CniError(INVALID_CONFIG, msg, f"{ALLOWLIST} has: {shown[:500]}")


def _read_allowlist(path: Path) -> list[re.Pattern[str]] | None:
    """None where there is no such file. Raises CniError where it cannot be read or understood."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise CniError(IO_FAILURE, f"{path} cannot be read", str(error)) from error
    return [_pattern(path, line.strip()) for line in lines if line.strip()]


def _pattern(path: Path, text: str) -> re.Pattern[str]:
    try:
        if _GO_ONLY.search(text):
            raise re.error("podwire does not know this syntax of Go")
        return re.compile(text, re.ASCII)
    except re.error as error:
        msg = f"{path}: {text[:80]!r} is no regular expression: {error}"
        raise CniError(INVALID_CONFIG, msg) from error


def delete(call: Call) -> None:
    """Give the pod's link its traits back."""
    from cni_plugin import pieces

    pieces.delete(plan_piece, "tuning", call)
    with suppress(OSError, ValueError):
        _restore_backup(call)


def _restore_backup(call: Call) -> None:
    """Do it for an attachment that the reference plugin made, whose note goes then."""
    from kernel.errors import KernelError
    from kernel.pieces import restore_traits

    folder = call.parsed.raw.get("dataDir") or DATA_DIR
    if not isinstance(folder, str) or not folder.startswith("/"):
        return
    path = Path(folder) / f"{call.request.container_id}_{call.request.ifname}.json"
    with path.open("rb") as file:
        noted = Section.of(str(path), json.loads(file.read(_LONGEST)))
    with call.open_pod_if_there() as pod, suppress(KernelError, ConfigError):
        if pod is not None:
            traits = _noted_traits(noted, call.request.ifname)
            restore_traits(pod, traits, clear_promisc=noted.boolean("promisc") is False)
    path.unlink()


def _noted_traits(noted: Section, ifname: str) -> Link:
    return Link(
        ifname,
        mac=_mac(noted),
        mtu=noted.integer("mtu"),
        promisc=noted.boolean("promisc") or False,
        allmulti=noted.boolean("allmulti"),
        queue_length=noted.integer("txQLen"),
    )
