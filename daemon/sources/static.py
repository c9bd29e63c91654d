"""The static source: nodes.yaml, a file of nodes that is read again whenever it changes."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from daemon.config.load import read_section
from daemon.config.schema import NodeAddress, NodeName, PodCidr, Prefixes, Section
from daemon.config.yaml import FILE_MAX, Fault, FileFault, Item, load
from daemon.files import FileState, Settling, open_regular, state_of
from daemon.model import Node, Snapshot, SourceActivity, keep_same, overlap


class StaticSource:
    """Snapshots of a file. After a broken edit the last good one stays in use, and `fault` has why.

    The first poll reads a file that was not written recently; else a poll reads it that finds it
    unchanged for SETTLE_SECONDS. A file that once ended with `...` must always end so. now, today:
    seconds by the monotonic clock, by the wall clock.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self.fault = ""
        self.activity = SourceActivity()
        self._path = path
        self._now, self._settling = now, Settling(now, today)
        self._snapshot: Snapshot | None = None
        self._marked = False

    def fileno(self) -> int | None:
        """None: inotify misses a file that is replaced by a mount; one stat is cheap."""
        return None

    def poll(self) -> Snapshot | None:
        """The file's snapshot if it is another one than the last. Never raises for the file."""
        try:
            state = state_of(os.stat(self._path))
            self.activity = replace(self.activity, last_received=self._now())
            if not self._settling.has_settled(state, state[0]):
                return None
            data = self._read(state)
            if data is None:
                return None
            self._settling.take(state)
            self.activity = replace(self.activity, bytes=self.activity.bytes + len(data))
            fresh = self._parse(data)
            # Thousands of new objects make a collection due: here, not amid the changes below.
            gc.collect()
            return self._take(fresh)
        except OSError as error:
            self._settling.forget()
            self.fault = f"{self._path}: could not be read: {error.strerror}"
        except FileFault as error:
            self.fault = str(error)
        return None

    def close(self) -> None:
        """Nothing is held open."""

    def _read(self, state: FileState) -> bytes | None:
        """The whole file; None where it changed meanwhile. Raises OSError, FileFault."""
        with open_regular(self._path) as file:
            before = os.fstat(file.fileno())
            data = file.read(FILE_MAX + 1)
            after = os.fstat(file.fileno())
            return data if state_of(before) == state_of(after) == state else None

    def _parse(self, data: bytes) -> Snapshot:
        """The snapshot. Raises FileFault, also where the end is missing that was there before.

        Lines that are missing at the end of a list make another right list, of fewer nodes.
        """
        marked = has_end_mark(data)
        if self._marked and not marked:
            why = "its last line was `...` before, and is not now: is it cut off?"
            raise FileFault(self._path, 0, why)
        fresh = parse_nodes(data, self._path)
        self._marked = marked
        return fresh

    def _take(self, fresh: Snapshot) -> Snapshot | None:
        self.fault = ""
        old, self._snapshot = self._snapshot, fresh
        if old is not None:
            self._snapshot = Snapshot(keep_same(old.nodes, fresh.nodes), fresh.cluster_cidrs)
            if self._snapshot == old:
                return None
        activity = self.activity
        self.activity = replace(
            activity, events=activity.events + 1, snapshots=activity.snapshots + 1
        )
        return self._snapshot


# -- nodes.yaml


class NodeEntry(Section):
    """A node. podCIDRs is required like the address: half of an entry must not be an entry."""

    name: NodeName
    addresses: tuple[NodeAddress, ...]
    pod_cidrs: tuple[PodCidr, ...]


class NodesFile(Section):
    """nodes.yaml."""

    cluster_cidrs: Prefixes = ()
    nodes: tuple[NodeEntry, ...]


def parse_nodes(data: bytes, file: Path | str) -> Snapshot:
    """The cluster in a file's content; `file` is what errors call it. Raises FileFault.

    What one node's entry says must fit together. Conflicts between nodes are for the planner, which
    keeps the good ones going.
    """
    return load(data, file, _read_snapshot)


def has_end_mark(data: bytes) -> bool:
    """Whether the file's last line is the mark of a document's end, `...` (YAML 1.1, 9.1.2)."""
    return data.rstrip().endswith(b"\n...")


def _read_snapshot(root: Item) -> Snapshot:
    content = read_section(NodesFile, root)
    if not content.nodes:
        raise Fault(root.find("nodes"), "must list a node at least: this one", shown=False)
    lines: dict[str, int] = {}
    for number, entry in enumerate(content.nodes):
        item = root.find("nodes", number)
        if entry.name in lines:
            why = f"the name {entry.name} is that of the node in line {lines[entry.name]} too"
            raise Fault(item, why, shown=False)
        lines[entry.name] = item.line
        _check_addresses(entry, item.find("addresses"))
        _check_pod_cidrs(entry, item.find("podCIDRs"))
    nodes = tuple(Node(e.name, e.addresses, e.pod_cidrs) for e in content.nodes)
    return Snapshot(nodes, content.cluster_cidrs)


def _check_addresses(entry: NodeEntry, item: Item) -> None:
    if not entry.addresses:
        raise Fault(item, "must hold an address at least", shown=False)
    for number, address in enumerate(entry.addresses):
        for other in entry.addresses[:number]:
            if other.version == address.version:
                why = f"IPv{address.version} has {other}: one of each family"
                raise Fault(item.find(number), why)


def _check_pod_cidrs(entry: NodeEntry, item: Item) -> None:
    for number, prefix in enumerate(entry.pod_cidrs):
        for other in entry.pod_cidrs[:number]:
            if overlap(other, prefix):
                raise Fault(item.find(number), f"overlaps {other} of the same node")
        inner = next((a for a in entry.addresses if a in prefix), None)
        if inner is not None:
            raise Fault(item.find(number), f"contains {inner}, an address of the same node")
