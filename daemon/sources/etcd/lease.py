"""The lease that this node's keys in etcd are on, and its copy on disk.

After a restart or an absence the node wants the same lease and the same subnets again.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.files import explain, make_folder, read_regular, replace_file
from daemon.log import Log
from daemon.model import parse_pod_cidr
from daemon.sources.etcd.gateway import Gateway, RequestRefused
from daemon.sources.etcd.keys import Malformed
from daemon.sources.remote import SourceError
from ipam.boot import read_boot_id
from kernel.model import IPNetwork

_FORMAT = 1
_FILE_MAX = 1 << 20  # bytes
# google/rpc/code.proto
_NOT_FOUND, _PRECONDITION = 5, 9
_RAISED_TTL = 75
"""Seconds that etcd may make of a shorter time: one and a half of its longest election."""
_MACHINE_IDS = (Path("/sys/class/dmi/id/product_uuid"), Path("/etc/machine-id"))
"""SMBIOS 7.2.1: a hypervisor gives each copy of a machine another UUID, and a daemon in a container
sees the machine's. machine-id(5), which is copied with a disk, serves where there is none."""


class LeaseLost(SourceError):
    """The lease has ended, and with it all keys of this node."""

    def __init__(self) -> None:
        super().__init__("the lease of this node has ended")


class Lease:
    """A lease in etcd.

    number: its ID; 0 before there is one. lost_early: it had ended before its time: etcd was
    replaced, or another client revoked it.
    """

    def __init__(self, gateway: Gateway, seconds: int) -> None:
        self.number = 0
        self.lost_early = False
        self._gateway, self._seconds = gateway, seconds
        self._renewed = -math.inf

    def hold(self, former: int) -> int:
        """The number of a live lease: the current one, the former one, else a new one.

        Only a lease that this node remembers is its own, whatever lease its keys are on.
        """
        number, self.number = self.number or former, 0
        if number:
            seconds = self._keep_alive(number)
            if self._seconds <= seconds <= max(self._seconds, _RAISED_TTL):
                self.number = number
            self.lost_early |= seconds <= 0 and time.monotonic() - self._renewed < self._seconds
        return self.number or self._grant()

    def renew(self) -> None:
        """Restart the lease's time. Raises LeaseLost, SourceError."""
        if self._keep_alive(self.number) <= 0:
            raise LeaseLost

    def revoke(self, number: int) -> None:
        """End a lease, and all keys on it; one that does not exist is no error."""
        try:
            self._gateway.call("/lease/revoke", {"ID": str(number)})
        except RequestRefused as error:
            if error.code != _NOT_FOUND:
                raise

    def _grant(self) -> int:
        # With an ID of our own a repeated request does not make a second lease.
        number = 1 + secrets.randbelow(2**63 - 1)
        try:
            self._gateway.call("/lease/grant", {"TTL": str(self._seconds), "ID": str(number)})
        except RequestRefused as error:
            if error.code != _PRECONDITION:  # it exists: the first answer was lost
                raise
        self.number, self._renewed = number, time.monotonic()
        return number

    def _keep_alive(self, number: int) -> int:
        """Restart a lease's time: its length in seconds, 0 where there is no such lease."""
        answer = self._gateway.call("/lease/keepalive", {"ID": str(number)})
        try:
            seconds = int(answer["result"].get("TTL", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed("an answer without a lease") from error
        if seconds > 0:
            self._renewed = time.monotonic()
        return seconds


@dataclass(frozen=True, slots=True)
class SavedLease:
    """What a node saved. boot: the boot in which it did; no pod outlives it. lease: of its keys.

    node: the node's name then.
    """

    subnets: tuple[IPNetwork, ...]
    lease: int
    boot: str
    node: str

    @property
    def is_of_this_boot(self) -> bool:
        """Whether pods may live in these subnets now."""
        return self.boot == read_boot_id()


class LeaseFile:
    """The copy on disk. identity: of the cluster; a lease of another one is not used.

    node: this node's name.
    """

    def __init__(self, path: Path, identity: str, node: str, log: Log) -> None:
        self._path, self._identity, self._node, self._log = path, identity, node, log
        self._saved: SavedLease | None = None
        self._machine = ""
        self._fault = ""

    @property
    def machine(self) -> str:
        """The ID of this machine: made once, and kept in the file."""
        self.load()
        if not self._machine:
            self._machine = secrets.token_hex(16)
        return self._machine

    def load(self) -> SavedLease | None:
        """What was held; None where nothing was saved."""
        if self._saved is None:
            try:
                self._saved = self._parse(json.loads(read_regular(self._path, _FILE_MAX)))
            except FileNotFoundError:
                return None
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                self._warn(f"{self._path} is not used: {str(error)[:200]}")
        return self._saved

    def save(self, subnets: Iterable[IPNetwork], lease: int) -> None:
        """Save it. A file that cannot be written is logged; the lease holds all the same."""
        saved = SavedLease(tuple(subnets), lease, read_boot_id(), self._node)
        if saved == self.load() and not self._fault:
            return
        self._saved = saved
        content = {
            "format": _FORMAT,
            "identity": self._identity,
            "machine": self.machine,
            "host": read_machine(),
            "node": saved.node,
            "boot": saved.boot,
            "lease": saved.lease,
            "podCIDRs": list(map(str, saved.subnets)),
        }
        try:
            make_folder(self._path.parent)
            replace_file(self._path, f"{json.dumps(content)}\n".encode(), 0o600, durable=True)
            self._fault = ""
        except OSError as error:
            self._warn(explain("this node's lease", self._path, error, "dataDir"))

    def forget(self) -> None:
        """Nothing is held any more."""
        self._saved = None
        self._path.unlink(missing_ok=True)

    def _parse(self, body: Any) -> SavedLease:
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']!r}, not {_FORMAT}")
        if body["identity"] != self._identity:
            raise ValueError(f"it is of {str(body['identity'])[:100]!r}")
        # Older files have neither host nor machine nor node.
        if body.get("host", read_machine()) != read_machine():
            raise ValueError("it was written on another machine, of which this one is a copy")
        subnets = tuple(map(parse_pod_cidr, body["podCIDRs"]))
        self._machine = self._machine or str(body.get("machine", ""))
        node = str(body.get("node", self._node))
        return SavedLease(subnets, int(body["lease"]), str(body["boot"]), node)

    def _warn(self, fault: str) -> None:
        if fault != self._fault:
            self._log.warning(fault)
        self._fault = fault


def read_machine() -> str:
    """A text for this machine, and for no copy of it that has a UUID of its own."""
    found = next(filter(None, map(_read_id, _MACHINE_IDS)), b"")
    return hashlib.sha256(found).hexdigest()[:32]


def _read_id(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError:  # no firmware that says it, or no right to read it
        return b""
