"""Where an attachment's addresses come from: podwire's own IPAM in-process, or another plugin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cni_plugin.config import NetConf
from cni_plugin.delegation import Delegate, find_program, require_program
from cni_plugin.errors import INVALID_CONFIG, NOT_AVAILABLE, CniError
from cni_plugin.host import Call, Host
from cni_plugin.request import Request
from cni_plugin.result import IPConfig, Result, ResultRoute, render_dns

if TYPE_CHECKING:
    from ipam.allocator import Assigned
    from ipam.config import IpamConf
    from ipam.transaction import Transaction

# The names under which podwire is an IPAM plugin.
IPAM_PROGRAMS = frozenset({"podwire-ipam", "host-local"})
OWN_TYPES = frozenset({"podwire", "podwire-ipam"})
# Started or named so, podwire's IPAM is the reference plugin's stand-in.
STAND_IN = "host-local"


def owns_ipam(request: Request, conf: NetConf, host: Host) -> bool:
    """Whether podwire's own IPAM serves this configuration.

    `host-local` is podwire's where CNI_PATH has podwire under that name, or nothing at all.
    """
    kind = conf.ipam_type
    if kind == STAND_IN:
        program = find_program(kind, request)
        return program is None or _is_podwire(program, host.executable)
    return kind in OWN_TYPES or (not kind and conf.uses_ipam)


def _is_podwire(program: Path, executable: Path | None) -> bool:
    if executable is None:
        return False
    own = os.path.realpath(executable)
    folder = os.path.dirname(own)
    return os.path.realpath(program) in (own, f"{folder}/podwire", f"{folder}/podwire-ipam")


def delegated_type(call: Call) -> str:
    """The IPAM plugin that this configuration delegates to; empty for podwire's own, or none."""
    return "" if call.owns_ipam else call.conf.ipam_type


def delegate_of(call: Call, kind: str = "") -> Delegate:
    """The IPAM plugin that this call is delegated to. kind: other than the configuration's."""
    name = kind or call.conf.ipam_type
    program = require_program(name, call.request)
    return Delegate(name, program, call.env, call.stdin, call.version, call.log, call.host)


def own_ipam(call: Call) -> IpamConf:
    """The configuration of podwire's own IPAM. Raises code 7 or 4."""
    # A file may be another one by now, and a requested address is one pod's.
    if call.request.args.get("IP") or any(k.lower() == "resolvconf" for k in call.conf.ipam):
        return _parse_ipam(call)
    key = ("ipam", call.host.data_dir)
    known = call.derived.get(key)
    if known is None:
        known = call.derived[key] = _parse_ipam(call)
    return cast("IpamConf", known)


def _parse_ipam(call: Call) -> IpamConf:
    from ipam.config import parse_ipam

    conf = call.conf
    if not conf.uses_ipam:
        raise CniError(INVALID_CONFIG, f"network {conf.name} has no ipam: say at least ipam.subnet")
    return parse_ipam(
        conf.name,
        conf.ipam,
        runtime_config={"ips": conf.runtime_config.ips, "ipRanges": conf.runtime_config.ip_ranges},
        cni_args=call.request.args,
        args={"ips": conf.args.ips},
        default_data_dir=call.host.data_dir,
        cni_version=call.version,
    )


def data_dir(call: Call) -> Path:
    """The folder of the store; ipam.dataDir counts for podwire's own IPAM only."""
    named = call.conf.ipam.get("dataDir")
    own = call.host.program in IPAM_PROGRAMS or call.owns_ipam
    if own and isinstance(named, str) and named.startswith("/") and "\0" not in named:
        return Path(named)
    return call.host.data_dir


def check_space(tx: Transaction, conf: IpamConf) -> None:
    """Raise code 50 where a range set has no free address."""
    from ipam.allocator import free_space

    for number, space in enumerate(free_space(tx, conf)):
        if space.held >= space.size:
            msg = f"range set {number} of network {conf.network} is full: {space.held} held"
            raise CniError(NOT_AVAILABLE, msg, "see `podwire-ipam list`")


def to_result(conf: IpamConf, assigned: tuple[Assigned, ...]) -> Result:
    """What podwire's IPAM gave, as an IPAM plugin's result."""
    return Result(
        ips=tuple(IPConfig(a.address, a.gateway) for a in assigned),
        routes=tuple(
            ResultRoute(r.dst, r.gw, r.mtu, r.advmss, r.priority, r.table, r.scope)
            for r in conf.routes
        ),
        dns=render_dns(conf.dns) if conf.dns else {},
    )
