"""What the log says of a CNI call: its verb, its outcome, and whose it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from cni_plugin.handle import Reply
from daemon.log import Log


def log_call(
    log: Log, env: Mapping[str, str], reply: Reply, seconds: float, lines: Iterable[str]
) -> None:
    """Log one call and its outcome. lines: what it reported on stderr."""
    fields = {**identity(env), "ms": round(seconds * 1000, 1)}
    for line in lines:
        log.warning(line.removeprefix("podwire: "), **fields)
    verb = env.get("CNI_COMMAND", "?")
    if reply.status == 0:
        log.info(f"{verb} done", **fields)
        return
    body = json.loads(reply.stdout or b"{}")
    log.error(f"{verb} failed: {body.get('msg', '')}", code=body.get("code"), **fields)


def identity(env: Mapping[str, str]) -> dict[str, str]:
    """The attachment that a call is for: pod, container and interface."""
    pairs = dict(item.partition("=")[::2] for item in env.get("CNI_ARGS", "").split(";"))
    pod = "/".join(filter(None, (pairs.get("K8S_POD_NAMESPACE"), pairs.get("K8S_POD_NAME"))))
    return {
        "pod": pod,
        "container": env.get("CNI_CONTAINERID", ""),
        "ifname": env.get("CNI_IFNAME", ""),
    }
