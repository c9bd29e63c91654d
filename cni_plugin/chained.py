"""The names of the reference's chained plugins, and what their modules share.

Each name is a module of `plugins/`. Most add a piece of a plan to the attachment: such a module has
`plan_piece(call, nl, previous)`, and its verbs are those of `pieces`. A module's own verbs outrank
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from cni_plugin.errors import INVALID_CONFIG, CniError
from ipam.json_section import Section
from ipam.ranges import IPInterface

if TYPE_CHECKING:
    from cni_plugin.host import Call
    from cni_plugin.result import Result
    from kernel.model import Piece, Plan
    from kernel.netlink.socket import Netlink

CHAINED_PROGRAMS = frozenset({"bandwidth", "firewall", "loopback", "portmap", "tuning"})
STAND_INS = frozenset({"bridge", "ptp", "host-local"}) | CHAINED_PROGRAMS
"""The reference plugins that podwire is when it is started under their name."""
_NATIVE_KEYS: Mapping[str, frozenset[str]] = {
    "bandwidth": frozenset(
        {"bandwidth", "ingressrate", "ingressburst", "egressrate", "egressburst"}
    ),
    "firewall": frozenset({"firewall"}),
    "tuning": frozenset({"sysctl", "promisc", "allmulti", "txqlen"}),
}
"""Features of a native configuration, by plugin, each with the keys that ask for it (lower case).

Its module has `parse_native(conf)`, and `native_piece(that, plan)` unless the plan has it; that is
None for no piece.
"""
_NESTED = frozenset({"runtimeconfig", "args", "cni"})
_VERBS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "collect", "STATUS": "status"}

Verb = Callable[["Call"], "Result | None"]


def chained_verb(command: str, program: str) -> Verb:
    """The function of a verb; one that does nothing where the plugin has no such verb."""
    module, name = import_module(f"cni_plugin.plugins.{program}"), _VERBS[command]
    own: Verb | None = getattr(module, name, None)
    if own or not hasattr(module, "plan_piece"):
        return own or _do_nothing
    shared = getattr(import_module("cni_plugin.pieces"), name, None)
    return partial(shared, module.plan_piece, program) if shared else _do_nothing


def _do_nothing(_call: Call) -> None:
    return None


def read_features(conf: Section) -> dict[str, object]:
    """What a native configuration asks for, by the plugin's name. Raises ConfigError, CniError.

    A plugin is imported where one of its keys is there.
    """
    asked = set(_keys(conf.values))
    found = [name for name, keys in _NATIVE_KEYS.items() if not asked.isdisjoint(keys)]
    return {name: import_module(f"cni_plugin.plugins.{name}").parse_native(conf) for name in found}


def _keys(values: Mapping[str, object]) -> Iterator[str]:
    """Those at the top level, in runtimeConfig and in args.cni, in lower case: each call asks."""
    for key, value in values.items():
        name = key.lower()
        yield name
        if name in _NESTED and isinstance(value, dict):
            yield from _keys(value)


def native_pieces(features: Mapping[str, object], plan: Plan) -> tuple[Piece, ...]:
    """The pieces of a native attachment, whose plan is made."""
    modules = ((import_module(f"cni_plugin.plugins.{n}"), conf) for n, conf in features.items())
    some = ((module, conf) for module, conf in modules if hasattr(module, "native_piece"))
    found = (module.native_piece(conf, plan) for module, conf in some)
    return tuple(piece for piece in found if piece is not None)


def require_previous(call: Call) -> Result:
    """The result of the plugins before. Raises code 7 where there is none."""
    previous = call.previous()
    if previous is None:
        msg = f"{call.host.program} must be called as chained plugin: there is no prevResult"
        raise CniError(INVALID_CONFIG, msg, f"list it behind another plugin of {call.conf.name}")
    return previous


def link_to_pod(nl: Netlink, addresses: Sequence[IPInterface]) -> str:
    """The node's link that leads to the pod; empty without an address. Raises KernelError."""
    from kernel.errors import KernelError
    from kernel.paths import Packet, find_paths

    if not addresses:
        return ""
    path = find_paths(nl, [Packet(addresses[0].ip)])[0]
    if not path.link:
        raise KernelError("find the link to", str(addresses[0].ip), path.errno)
    return path.link
