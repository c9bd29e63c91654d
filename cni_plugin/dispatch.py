"""From a request to its verb: the configuration read, the call put together, the verb run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cni_plugin.config import Given, parse_config, parse_remains, recall, remember
from cni_plugin.errors import CniError
from cni_plugin.host import Call, Host
from cni_plugin.ipam_client import IPAM_PROGRAMS, owns_ipam
from cni_plugin.request import Request
from cni_plugin.result import Result, render
from ipam.errors import StoreDamaged
from ipam.owner import Owner

__all__ = ["read_configuration", "recall", "run"]


def read_configuration(stdin: bytes, raw: Mapping[str, Any], version: str, command: str) -> Given:
    """What stdin, decoded, says; of a DEL at least what can be used. Raises code 7 or 2."""
    try:
        given = Given(raw, version, parse_config(raw))
    except CniError as fault:
        if command != "DEL":
            raise
        # Whatever was edited since ADD: a pod must always be deletable.
        return Given(raw, version, parse_remains(raw), fault)
    if command == "ADD":  # the others' contain results, and do not come again
        remember(stdin, given)
    return given


def run(
    request: Request, given: Given, env: Mapping[str, str], stdin: bytes, host: Host
) -> dict[str, Any] | None:
    """The verb's answer as a JSON object, None where it has none; a damaged store is replaced."""
    own = owns_ipam(request, given.conf, host)
    owner = Owner(given.conf.name, request.container_id, request.ifname)
    call = Call(
        request, owner, given.conf, given.raw, given.version, env, stdin, host, own,
        given.derived, given.fault,
    )  # fmt: skip
    verb = _verb(request.command, host.program)
    try:
        result = verb(call)
    except StoreDamaged as damage:
        from cni_plugin.store_access import recover_store

        recover_store(damage.path.parent, host.log)
        result = verb(call)
    return None if result is None else render(result, given.version)


def _verb(command: str, program: str) -> Callable[[Call], Result | None]:
    """The function of a verb; imported here, so that a call loads only what it needs."""
    if program in IPAM_PROGRAMS:
        from cni_plugin import ipam_verbs

        return {
            "ADD": ipam_verbs.add,
            "DEL": ipam_verbs.delete,
            "CHECK": ipam_verbs.check,
            "GC": ipam_verbs.collect,
            "STATUS": ipam_verbs.status,
        }[command]
    if command == "ADD":
        from cni_plugin.add import add

        return add
    if command in ("DEL", "GC"):
        from cni_plugin.delete import collect, delete

        return delete if command == "DEL" else collect
    from cni_plugin.check import check, status

    return check if command == "CHECK" else status
