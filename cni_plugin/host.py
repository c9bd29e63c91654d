"""The node that a call runs on, passed to `handle` so that nothing below reads it by itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ipam
from cni_plugin.errors import INVALID_ENVIRONMENT, CniError
from kernel.errors import NotANamespace

if TYPE_CHECKING:
    from cni_plugin.config import NetConf, ParsedConfig
    from cni_plugin.ipam_client import Ipam
    from cni_plugin.request import Request
    from cni_plugin.result import Result
    from ipam.files import Refill
    from ipam.store import Store
    from ipam.transaction import Owner
    from kernel.model import IPAddress
    from kernel.netlink.socket import Netlink
    from kernel.netns import Namespace

    OpenStore = Callable[[Path, Refill], AbstractContextManager[Store]]

DEFAULT_DATA_DIR = Path(ipam.DEFAULT_DATA_DIR)
DEFAULT_INDEX = Path(os.environ.get("PODWIRE_STORES") or "/run/podwire/stores")
"""Where the node's stores are entered (`store_index`)."""
RUNTIME_CACHE = "/var/lib/cni/results"
"""Where libcni keeps a file for each attachment, unless the runtime moved it (libcni.CacheDir)."""
DEFAULT_SOCKET = Path("/run/podwire/podwire.sock")
"""Where the executable connects to unless PODWIRE_SOCKET names another socket (shim.c)."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def always_ready(_network: str) -> CniError | None:
    """Nothing is known against any network."""
    return None


def _open_once(folder: Path, refill: Refill) -> AbstractContextManager[Store]:
    from ipam.store import open_store

    return open_store(folder, refill=refill)


def _open_namespace(path: str) -> Namespace:
    from kernel.netns import open_namespace

    return open_namespace(path)


def _delete_links(nl: Netlink, names: Sequence[str]) -> bool:
    from kernel.attach import delete_links

    return delete_links(nl, names)


def _forget_connections(addresses: Collection[IPAddress]) -> None:
    from kernel.conntrack import forget_pods

    forget_pods(addresses)


@dataclass(frozen=True, slots=True)
class Host:
    """The node as one call sees it.

    program: the name that podwire was started under; the reference plugins' names select theirs.
    executable: the file of that name, so that a delegation to itself is recognised.
    data_dir: the folder of podwire.db unless the configuration names one.
    index: the folder where the node's stores are entered.
    open_netns: opens CNI_NETNS (the daemon has a descriptor instead of a path).
    log: takes a line for the operator.
    open_store: opens the store of a folder; the daemon keeps it open between calls.
    delete_links: deletes links of the node by name, whether the first was there; the daemon gathers
        deletions, for they cost the same together.
    forget_connections: deletes what the kernel tracks of pods' addresses; the daemon gathers these,
        too.
    outside: what a call is in while it waits for the kernel or another program.
    began: when the call came, in seconds of the monotonic clock.
    delegating: what a call is in while it has to do with the IPAM plugin of that name; the daemon
        bounds how many wait for one, and raises CniError.
    running: what a call is in while the process group of that number runs for it.
    readiness: why the node as such cannot serve a network now, by its name (the daemon
        knows whether other nodes are reached); None where nothing speaks against it.
    """

    program: str = "podwire"
    executable: Path | None = None
    data_dir: Path = DEFAULT_DATA_DIR
    index: Path = DEFAULT_INDEX
    open_netns: Callable[[str], Namespace] = field(default=_open_namespace)
    log: Callable[[str], None] = field(default=_to_stderr)
    open_store: OpenStore = field(default=_open_once)
    delete_links: Callable[[Netlink, Sequence[str]], bool] = field(default=_delete_links)
    forget_connections: Callable[[Collection[IPAddress]], None] = field(default=_forget_connections)
    outside: Callable[[], AbstractContextManager[None]] = nullcontext
    readiness: Callable[[str], CniError | None] = field(default=always_ready)
    began: float = field(default_factory=time.monotonic)
    delegating: Callable[[str], AbstractContextManager[object]] = nullcontext
    running: Callable[[int], AbstractContextManager[object]] = nullcontext

    def pause(self, seconds: float) -> None:
        """Sleep, and let other calls go on meanwhile."""
        with self.outside():
            time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Call:
    """One call, parsed: what every verb takes.

    owner: the attachment's key.
    ipam: what gives the network's attachments their addresses.
    """

    request: Request
    owner: Owner
    parsed: ParsedConfig
    env: Mapping[str, str]
    stdin: bytes
    host: Host
    ipam: Ipam

    @property
    def conf(self) -> NetConf:
        """The configuration."""
        return self.parsed.conf

    @property
    def version(self) -> str:
        """The configuration's cniVersion."""
        return self.parsed.version

    def previous(self) -> Result | None:
        """prevResult, the result of the plugins before. Raises code 7 where it is wrong."""
        from cni_plugin.result import parse_result

        raw = self.conf.prev_result
        return parse_result(raw, self.version) if raw else None

    @contextmanager
    def open_pod(self) -> Iterator[Namespace]:
        """The pod's namespace. Raises code 4 where it is the node's own, NotANamespace."""
        request = self.request
        with self.host.open_netns(request.netns) as pod:
            if pod.is_current() and not request.netns_override:
                msg = f"CNI_NETNS={request.netns!r} is the node's own network namespace"
                raise CniError(INVALID_ENVIRONMENT, msg)
            yield pod

    @contextmanager
    def open_pod_if_there(self) -> Iterator[Namespace | None]:
        """The same; None where it is gone, as it usually is when a pod goes, or the node's own."""
        netns = self.request.netns
        try:
            pod = self.host.open_netns(netns) if netns else None
        except NotANamespace:
            pod = None
        with pod or nullcontext():
            yield None if pod is None or pod.is_current() else pod

    def log(self, line: str) -> None:
        """Log a line for the operator, with the attachment's identity before it."""
        request = self.request
        pod = f" pod {request.pod}" if request.pod else ""
        who = f"{self.conf.name} {request.container_id[:16]} {request.ifname}".strip()
        self.host.log(f"podwire: {request.command} {who}{pod}: {line}")
