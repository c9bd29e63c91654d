"""The entry of every CNI call; here alone exceptions become CNI errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from cni_plugin import errors, versions
from cni_plugin.errors import CniError
from cni_plugin.request import Request, decode, parse_request
from ipam.errors import EXHAUSTED, IpamError, StoreDamaged
from kernel.errors import KernelError, NotANamespace

if TYPE_CHECKING:
    from cni_plugin.config import ParsedConfig
    from cni_plugin.host import Call, Host
    from cni_plugin.result import Result


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller gets: exit status and stdout."""

    status: int
    stdout: bytes


def handle(env: Mapping[str, str], stdin: bytes, host: Host) -> Reply:
    """Serve one call. Never raises; every failure is one error object of the specification."""
    version = versions.LATEST
    try:
        # A runtime attaches a pod to `loopback` by the name of the link that the kernel has made.
        request = parse_request(env, "lo" if host.program == "loopback" else "")
        if request.command == "VERSION":
            return _answer_version(stdin)
        from cni_plugin.config import cached_config, read_config  # VERSION needs none of it
        from cni_plugin.ipam_client import IPAM_PROGRAMS

        parsed = cached_config(stdin)
        raw = parsed.raw if parsed else decode(stdin)
        refusal = None
        try:
            version = versions.require_supported(raw.get("cniVersion"))
        except CniError as error:
            if request.command != "DEL":
                raise
            refusal = error  # DEL is the same in all versions
        versions.require_verb(version, request.command)
        is_ipam = host.program in IPAM_PROGRAMS
        parsed = parsed or read_config(stdin, raw, version, request.command, is_ipam=is_ipam)
        parsed = replace(parsed, refusal=refusal) if refusal else parsed
        body = _run_verb(request, parsed, env, stdin, host)
        return Reply(0, b"") if body is None else _reply(0, body)
    except Exception as error:
        return _reply(1, _error_body(_translate(error, host), version))


def refuse(error: CniError) -> Reply:
    """The reply for a call that could not even be read."""
    return _reply(1, _error_body(error, versions.LATEST))


def _run_verb(
    request: Request, parsed: ParsedConfig, env: Mapping[str, str], stdin: bytes, host: Host
) -> dict[str, Any] | None:
    """The verb's answer as a JSON object, None where it has none; a damaged store is replaced."""
    from cni_plugin.host import Call
    from cni_plugin.ipam_client import choose_ipam
    from cni_plugin.result import render
    from ipam.transaction import Owner

    owner = Owner(parsed.conf.name, request.container_id, request.ifname)
    ipam = choose_ipam(request, parsed.conf, host)
    call = Call(request, owner, parsed, env, stdin, host, ipam)
    verb = _verb(request.command, host.program)
    try:
        result = verb(call)
    except StoreDamaged as damage:
        from cni_plugin.store_access import recover_store

        recover_store(damage.path.parent, host.log)
        result = verb(call)
    return None if result is None else render(result, parsed.version)


def _verb(command: str, program: str) -> Callable[[Call], Result | None]:
    """The function of a verb; imported here, so that a call loads only what it needs."""
    from cni_plugin.chained import CHAINED_PROGRAMS, chained_verb
    from cni_plugin.ipam_client import IPAM_PROGRAMS

    if program in CHAINED_PROGRAMS:
        return chained_verb(command, program)
    if program in IPAM_PROGRAMS:
        from cni_plugin import ipam_plugin

        return {
            "ADD": ipam_plugin.add,
            "DEL": ipam_plugin.delete,
            "CHECK": ipam_plugin.check,
            "GC": ipam_plugin.collect,
            "STATUS": ipam_plugin.status,
        }[command]
    if command == "ADD":
        from cni_plugin.add import add

        return add
    if command in ("DEL", "GC"):
        from cni_plugin.delete import collect, delete

        return delete if command == "DEL" else collect
    from cni_plugin.check import check, status

    return check if command == "CHECK" else status


def _answer_version(stdin: bytes) -> Reply:
    """VERSION answers whatever is on stdin: by it a runtime finds out what to send."""
    try:
        version = decode(stdin).get("cniVersion")
    except CniError:
        version = None
    return _version_reply(version if version in versions.SUPPORTED else versions.LATEST)


@cache
def _version_reply(spoken: str) -> Reply:
    return _reply(0, {"cniVersion": spoken, "supportedVersions": list(versions.SUPPORTED)})


def _translate(error: Exception, host: Host) -> CniError:
    if isinstance(error, CniError):
        return error
    if isinstance(error, IpamError):
        return CniError(error.code, error.msg, error.details)
    if isinstance(error, NotANamespace):
        return CniError(errors.INVALID_ENVIRONMENT, f"CNI_NETNS: {error}")
    if isinstance(error, KernelError):
        return CniError(errors.KERNEL_REFUSED, str(error))
    if isinstance(error, MemoryError):
        return CniError(errors.TRY_AGAIN, "out of memory", "see what uses the node's memory")
    if isinstance(error, OSError):
        code = errors.TRY_AGAIN if error.errno in EXHAUSTED else errors.IO_FAILURE
        return CniError(code, f"{error.strerror or error}", str(error.filename or ""))
    where = _innermost(error)
    host.log(f"podwire: internal error {type(error).__name__}: {error} at {where}")
    msg = f"internal error: {type(error).__name__}: {error}"
    return CniError(errors.INTERNAL, msg, f"at {where}; please report this")


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}"


def _error_body(error: CniError, version: str) -> dict[str, Any]:
    body = {"cniVersion": version, "code": error.code, "msg": error.msg}
    return body | ({"details": error.details} if error.details else {})


def _reply(status: int, body: Mapping[str, Any]) -> Reply:
    # On one line: the encoder for indented text is not in C, and programs read it.
    return Reply(status, json.dumps(body, ensure_ascii=True).encode() + b"\n")
