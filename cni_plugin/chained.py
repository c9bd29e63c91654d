"""The names of the reference's chained plugins, and what their verbs share.

Each name is a module of `plugins/` with the verbs that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.host import Call
from cni_plugin.result import Result, parse_result
from ipam.ranges import IPInterface

_MODULES = {"loopback": "loopback", "portmap": "portmap_verbs"}
CHAINED_PROGRAMS = frozenset(_MODULES)
_VERBS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "collect", "STATUS": "status"}


def chained_verb(command: str, program: str) -> Callable[[Call], Result | None]:
    """The function of a verb; one that does nothing where the plugin has no such verb."""
    module: ModuleType = import_module(f"cni_plugin.plugins.{_MODULES[program]}")
    verb: Callable[[Call], Result | None] = getattr(module, _VERBS[command], _do_nothing)
    return verb


def _do_nothing(_call: Call) -> None:
    return None


def require_previous(call: Call) -> Result:
    """The result of the plugins before. Raises code 7 where there is none."""
    raw = call.conf.prev_result
    if not raw:
        msg = f"{call.host.program} must be called as chained plugin: there is no prevResult"
        raise CniError(INVALID_CONFIG, msg, f"list it behind another plugin of {call.conf.name}")
    return parse_result(raw, call.version)


def pod_addresses(call: Call, previous: Result) -> tuple[IPInterface, ...]:
    """The addresses of the pod's interface, and those that no interface is named for."""
    mine = {
        number
        for number, interface in enumerate(previous.interfaces)
        if interface.sandbox and interface.name == call.request.ifname
    }
    return tuple(i.address for i in previous.ips if i.interface is None or i.interface in mine)
