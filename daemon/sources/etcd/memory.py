"""What this node held in etcd, on disk: it wants the same again, after whatever happened there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.files import explain, replace_file
from daemon.log import Log
from daemon.machine_id import read_host
from daemon.model import parse_pod_cidr
from ipam.boot import read_boot_id
from kernel.model import IPNetwork

_FORMAT = 1
_FILE_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Held:
    """What a node held. boot: the boot in which it did; no pod outlives it. lease: of its keys.

    node: the name by which it did.
    """

    subnets: tuple[IPNetwork, ...]
    lease: int
    boot: str
    node: str

    @property
    def is_of_this_boot(self) -> bool:
        """Whether pods may live in these subnets now."""
        return self.boot == read_boot_id()


class Memory:
    """The file. identity: of what cluster it is; what was held in another one does not count.

    node: this node's name.
    """

    def __init__(self, path: Path, identity: str, node: str, log: Log) -> None:
        self._path, self._identity, self._node, self._log = path, identity, node, log
        self._held: Held | None = None
        self._machine = ""
        self._fault = ""

    @property
    def machine(self) -> str:
        """What tells this machine from all others: made once, and kept with what is held."""
        self.load()
        if not self._machine:
            self._machine = secrets.token_hex(16)
        return self._machine

    def load(self) -> Held | None:
        """What was held; None where nothing is known."""
        if self._held is None:
            try:
                with open(self._path, "rb") as file:
                    self._held = self._parse(json.loads(file.read(_FILE_MAX)))
            except FileNotFoundError:
                return None
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                self._tell(f"{self._path} is not used: {str(error)[:200]}")
        return self._held

    def save(self, subnets: Iterable[IPNetwork], lease: int) -> None:
        """Keep it. A file that cannot be written is told, and costs no more than this."""
        held = Held(tuple(subnets), lease, read_boot_id(), self._node)
        if held == self.load():
            return
        self._held = held
        content = {
            "format": _FORMAT,
            "identity": self._identity,
            "machine": self.machine,
            "host": read_host(),
            "node": held.node,
            "boot": held.boot,
            "lease": held.lease,
            "podCIDRs": list(map(str, held.subnets)),
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, f"{json.dumps(content)}\n".encode(), 0o600, durable=True)
            self._fault = ""
        except OSError as error:
            self._tell(explain("this node's lease", self._path, error, "dataDir"))

    def forget(self) -> None:
        """Nothing is held any more."""
        self._held = None
        self._path.unlink(missing_ok=True)

    def _parse(self, body: Any) -> Held:
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']!r}, not {_FORMAT}")
        if body["identity"] != self._identity:
            raise ValueError(f"it is of {str(body['identity'])[:100]!r}")
        # Older files say neither host nor machine nor node.
        if body.get("host", read_host()) != read_host():
            raise ValueError("it was written on another machine, of which this one is a copy")
        subnets = tuple(map(parse_pod_cidr, body["podCIDRs"]))
        self._machine = self._machine or str(body.get("machine", ""))
        node = str(body.get("node", self._node))
        return Held(subnets, int(body["lease"]), str(body["boot"]), node)

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            self._log.warning(fault)
        self._fault = fault
