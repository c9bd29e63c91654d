"""Throw-away network namespaces, made and removed with iproute2's `ip`."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_NETNS = Path("/run/netns")
PREFIX = "cnitest"
_counter = itertools.count()


class ToolError(Exception):
    """`ip` refused what the suite itself needs; never the plugin's fault."""


def run_ip(*args: str, stdin: bytes = b"") -> bytes:
    """Runs `ip`; raises ToolError with its message."""
    done = subprocess.run(("ip", *args), input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise ToolError(f"ip {' '.join(args)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> str:
        """What a runtime would pass as CNI_NETNS."""
        return str(RUN_NETNS / self.name)

    def ip(self, *args: str) -> None:
        run_ip("-n", self.name, *args)

    def show(self, *args: str) -> list[dict[str, Any]]:
        """`ip -j` output; empty objects (links of another kind) left out."""
        found = json.loads(run_ip("-n", self.name, "-j", "-d", *args) or b"[]")
        return [item for item in found if item]

    def link(self, ifname: str) -> dict[str, Any] | None:
        """The link of exactly this name, with its addresses under `addr_info`."""
        links = self.show("address", "show")
        return next((link for link in links if link["ifname"] == ifname), None)

    def link_names(self) -> set[str]:
        return {link["ifname"] for link in self.show("link", "show")}

    def addresses(self, ifname: str) -> set[str]:
        """Addresses in CIDR notation, link-local ones left out."""
        link = self.link(ifname) or {"addr_info": []}
        return {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link"}

    def route_destinations(self) -> set[str]:
        """Destinations in the main table, both families; `default` written as a prefix."""
        four = {r["dst"] for r in self.show("-4", "route", "show")}
        six = {r["dst"] for r in self.show("-6", "route", "show")}
        zero = {"default"}
        names = {"0.0.0.0/0"} if four & zero else set()
        names |= {"::/0"} if six & zero else set()
        return names | (four - zero) | (six - zero)

    def remove(self) -> None:
        """Ends what still runs inside and removes the name; repeatable, also by several at once."""
        if not Path(self.path).exists():
            return
        try:
            for pid in run_ip("netns", "pids", self.name).split():
                _kill(int(pid))
            run_ip("netns", "delete", self.name)
        except ToolError:
            # Suites that start together sweep the same leftovers.
            if Path(self.path).exists():
                raise


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A new, empty namespace; its name tells which process owns it."""
    made = Namespace(f"{PREFIX}-{os.getpid()}-{next(_counter)}")
    try:
        run_ip("netns", "add", made.name)
        yield made
    finally:
        made.remove()


def sweep() -> None:
    """Removes namespaces of earlier runs whose process was killed outright."""
    for path in RUN_NETNS.glob(f"{PREFIX}-*-*"):
        owner = path.name.split("-")[1]
        if not Path("/proc", owner).exists():
            Namespace(path.name).remove()
