"""Calls of `handle`, and what every answer to a wrong one must be like."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from hypothesis import HealthCheck, settings

from cni_plugin.errors import INTERNAL
from cni_plugin.handle import Reply, handle
from cni_plugin.host import Host
from cni_plugin.versions import SUPPORTED
from kernel.netns import Namespace
from tests.unit.cni_plugin import namespaces

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
TAKES_A_CONFIG = [verb for verb in VERBS if verb != "VERSION"]
with_node = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""For examples that share one node: each has to do with whatever the one before left."""

CONFIG: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "podnet",
    "type": "podwire",
    "mode": "ptp",
    "ipam": {"type": "podwire", "subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
}
"""A configuration with which ADD succeeds."""

ENVIRONMENT: Mapping[str, str] = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "container1",
    "CNI_NETNS": "/run/netns/pod",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/nonexistent",
}


def environment(command: str = "ADD", **changes: str) -> dict[str, str]:
    """The environment of a right call, with changes."""
    return {**ENVIRONMENT, "CNI_COMMAND": command, **changes}


def config(**changes: Any) -> dict[str, Any]:
    """The configuration of a right call, with changes; None takes a key away."""
    return {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}


def encode(conf: Any) -> bytes:
    """A configuration as bytes on stdin."""
    return json.dumps(conf).encode()


@dataclass
class Node:
    """A node with one pod: CNI_NETNS is the pod's namespace, whatever path it says."""

    data_dir: Path
    program: str = "podwire"
    log: list[str] = field(default_factory=list)
    _pod: int | None = None
    _kept: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.replace_pod()
        while self._kept:
            os.close(self._kept.pop())

    def replace_pod(self, *, keep: bool = False) -> None:
        """The next call that asks for the pod's namespace gets a new one.

        Unless kept, the old one goes as soon as the kernel comes to it, and its links with it.
        """
        if self._pod is not None and keep:
            self._kept.append(self._pod)
        elif self._pod is not None:
            os.close(self._pod)
        self._pod = None

    def _open_pod(self, path: str) -> Namespace:
        if self._pod is None:
            self._pod = namespaces.make()
        return Namespace(os.dup(self._pod), path)

    def host(self) -> Host:
        """The world that calls run in."""
        return Host(
            program=self.program,
            data_dir=self.data_dir,
            index=self.data_dir.parent / "stores",
            open_netns=self._open_pod,
            log=self.log.append,
        )

    def call(
        self,
        env: Mapping[str, str],
        stdin: bytes | Mapping[str, Any],
        open_netns: Callable[[str], Namespace] | None = None,
    ) -> Reply:
        """One call; a configuration that is not bytes is sent as JSON."""
        data = stdin if isinstance(stdin, bytes) else encode(stdin)
        host = self.host()
        return handle(env, data, replace(host, open_netns=open_netns or host.open_netns))

    def is_untouched(self) -> bool:
        """Whether nothing was written."""
        return not self.data_dir.exists()


def succeeded(reply: Reply) -> dict[str, Any]:
    """The result of a call that must have succeeded; empty for verbs without one."""
    assert reply.status == 0, reply.stdout.decode()
    body = json.loads(reply.stdout) if reply.stdout else {}
    assert isinstance(body, dict)
    return body


def refused(reply: Reply) -> dict[str, Any]:
    """The error object of a call that must have failed (SPEC 1.1.0, section 5 "Error")."""
    assert type(reply.status) is int
    assert 0 < reply.status < 256
    body = json.loads(reply.stdout.decode("ascii"))
    assert isinstance(body, dict)
    assert {"cniVersion", "code", "msg"} <= set(body) <= {"cniVersion", "code", "msg", "details"}
    assert body["cniVersion"] in SUPPORTED
    assert type(body["code"]) is int
    assert body["code"] > 0
    assert body["code"] != INTERNAL, body
    assert isinstance(body["msg"], str)
    assert body["msg"].strip()
    assert "\n" not in body["msg"], "one line for people"
    assert isinstance(body.get("details", ""), str)
    text = reply.stdout.decode()
    assert "Traceback" not in text
    assert 'File "' not in text
    assert len(text) < 10_000, "not the whole configuration"
    return body


def words(body: Mapping[str, Any]) -> str:
    """All that an error object says to a person."""
    return f"{body['msg']} {body.get('details', '')}"


def answered(reply: Reply) -> dict[str, Any]:
    """The answer to a call that may succeed or fail, but must do either properly."""
    return succeeded(reply) if reply.status == 0 else refused(reply)
