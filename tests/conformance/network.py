"""The runtime's part: a node, its pods, and calls of the plugin in between."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import snapshot
from .namespaces import Namespace, namespace
from .netconf import NetConf
from .request import Plugin, Reply, Request

Json = dict[str, Any]
IFNAME = "eth0"


def encode(conf: Json) -> bytes:
    return json.dumps(conf).encode()


@dataclass(frozen=True, slots=True)
class Pod:
    """A container: its ID and its network namespace."""

    container_id: str
    space: Namespace

    @property
    def path(self) -> str:
        return self.space.path


@dataclass(frozen=True, slots=True)
class Attachment:
    """A successful ADD: the request, the configuration and the result."""

    pod: Pod
    request: Request
    conf: Json
    result: Json

    @property
    def ifname(self) -> str:
        return str(self.request.ifname)

    def addresses(self) -> set[str]:
        """Addresses in CIDR notation that the kernel has on the interface."""
        return self.pod.space.addresses(self.ifname)

    def check_conf(self) -> Json:
        """The configuration of a later CHECK or DEL (SPEC section 3: with prevResult)."""
        return {**self.conf, "prevResult": self.result}


@dataclass(frozen=True, slots=True)
class Network:
    """One network on one node, with the plugin under test."""

    plugin: Plugin
    cni_path: str
    body: Json
    version: str
    node: Namespace
    folder: Path
    stack: ExitStack

    def pod(self) -> Pod:
        """A new container with an empty network namespace."""
        return Pod(f"c{uuid.uuid4().hex}", self.stack.enter_context(namespace()))

    def conf(self, version: str | None = None, **changes: Any) -> Json:
        """A request configuration; *changes* replace top-level keys."""
        return {
            "cniVersion": version or self.version,
            "runtimeConfig": {},
            **copy.deepcopy(self.body),
            **changes,
        }

    def request(self, command: str, pod: Pod | None, conf: Json, ifname: str = IFNAME) -> Request:
        """What a runtime would send; without a pod there are no attachment parameters."""
        request = Request(command, path=self.cni_path, stdin=encode(conf))
        if pod is None:
            return request
        return replace(request, container_id=pod.container_id, netns=pod.path, ifname=ifname)

    def run(self, request: Request, stdin: Any = None) -> Reply:
        return self.plugin.run(request, self.node, stdin)

    def run_together(self, requests: Sequence[Request]) -> list[Reply]:
        """All at the same time."""
        running = [self.plugin.start(request, self.node) for request in requests]
        return [call.wait() for call in running]

    def add(self, pod: Pod, ifname: str = IFNAME, conf: Json | None = None) -> Reply:
        return self.run(self.request("ADD", pod, conf or self.conf(), ifname))

    def attach(
        self, pod: Pod | None = None, ifname: str = IFNAME, conf: Json | None = None
    ) -> Attachment:
        """An ADD that must succeed, into a new pod unless one is given."""
        conf = conf or self.conf()
        request = self.request("ADD", pod := pod or self.pod(), conf, ifname)
        return Attachment(pod, request, conf, self.run(request).result())

    def check(self, attachment: Attachment, **changes: Any) -> Reply:
        """CHECK; *changes* replace fields of the request."""
        return self._later("CHECK", attachment, changes)

    def delete(self, attachment: Attachment, **changes: Any) -> Reply:
        """DEL; *changes* replace fields of the request."""
        return self._later("DEL", attachment, changes)

    def _later(self, command: str, attachment: Attachment, changes: Json) -> Reply:
        stdin = encode(attachment.check_conf())
        request = replace(attachment.request, command=command, stdin=stdin)
        return self.run(replace(request, **changes))

    def collect(self, *valid: Attachment, conf: Json | None = None) -> Reply:
        """GC with *valid* as the attachments to keep."""
        kept = [{"containerID": a.pod.container_id, "ifname": a.ifname} for a in valid]
        conf = {**(conf or self.conf()), "cni.dev/valid-attachments": kept}
        return self.run(self.request("GC", None, conf))

    def status(self, conf: Json | None = None) -> Reply:
        return self.run(self.request("STATUS", None, conf or self.conf()))

    def unchanged(self, *pods: Pod, ignore: tuple[str, ...] = ()) -> AbstractContextManager[None]:
        """Asserts that the block changes neither the node nor *pods*."""
        return snapshot.unchanged(self.node, *(pod.space for pod in pods), ignore=ignore)


@contextmanager
def network(
    plugin: Plugin, cni_path: str, conf: NetConf, version: str, folder: Path
) -> Iterator[Network]:
    """A node of its own for one network; everything goes with it."""
    with ExitStack() as stack:
        node = stack.enter_context(namespace())
        node.ip("link", "set", "lo", "up")
        body = conf.instance(folder)
        body["name"] = f"{body['name']}-{uuid.uuid4().hex[:8]}"
        yield Network(plugin.with_folder(folder), cni_path, body, version, node, folder, stack)
