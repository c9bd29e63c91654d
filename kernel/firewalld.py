"""Sources of firewalld's zones, by D-Bus (firewalld.dbus(5)).

`busctl` is of systemd; it starts nothing that does not run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.programs import require_program, run_program

_ADDRESS = "DBUS_SYSTEM_BUS_ADDRESS"
_DEFAULT_SOCKET = "/run/dbus/system_bus_socket"
_NAME, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_PRESENT = "ZONE_ALREADY_SET"
_QUOTED = re.compile(r'"([^"]*)"')
_SECONDS = 10


def is_running() -> bool:
    """Whether firewalld is on the system bus; not where that cannot be found out."""
    if not (os.environ.get(_ADDRESS) or os.path.exists(_DEFAULT_SOCKET)):
        return False
    try:
        _call((_BUS, _BUS_PATH, _BUS), "GetNameOwner", _NAME, what=("find", "firewalld"))
    except KernelError:
        return False
    return True


def add_source(zone: str, address: IPAddress) -> None:
    """Let packets from the address be in the zone; again is no error. Raises KernelError."""
    try:
        _zone_call("addSource", zone, [source_of(address)], f"add {address} to")
    except KernelError as error:
        if _PRESENT not in error.hint:
            raise


def remove_source(zone: str, address: IPAddress) -> None:
    """Undo it. Raises KernelError, also where the zone has no such source."""
    _zone_call("removeSource", zone, [source_of(address)], f"remove {address} from")


def read_sources(zone: str) -> frozenset[str]:
    """The sources of a zone, as firewalld lists them. Raises KernelError."""
    listed = _zone_call("getSources", zone, (), "list the sources of")
    return frozenset(_QUOTED.findall(listed))


def source_of(address: IPAddress) -> str:
    """An address as a source of a zone."""
    return f"{address}/{address.max_prefixlen}"


def _zone_call(method: str, zone: str, texts: Sequence[str], operation: str) -> str:
    what = (operation, f"firewalld's zone {zone}")
    return _call((_NAME, _PATH, f"{_NAME}.zone"), method, zone, *texts, what=what)


def _call(target: tuple[str, str, str], method: str, *texts: str, what: tuple[str, str]) -> str:
    program = require_program("busctl", "install systemd's busctl, or set backend: iptables")
    options = ["--system", "--auto-start=no", f"--timeout={_SECONDS}", "call", "--"]
    bus = os.environ.get(_ADDRESS)
    argv = [program, *options, *target, method, "s" * len(texts), *texts]
    return run_program(argv, what, env={_ADDRESS: bus} if bus else None)
