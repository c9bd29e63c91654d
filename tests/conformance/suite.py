"""What one run of the suite knows: the plugin, its configuration, its declared versions."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import netconf, shortfalls, snapshot, spec
from .namespaces import namespace, sweep
from .request import NotOneObject, Plugin, Request, parse_object

# Why a test without a trait of the configuration or the plugin has no meaning.
_ABSENT = {
    "main": "what is judged of a plugin that attaches pods",
    "chained": "what is judged of a plugin behind others in a chain",
    "1.1.0": "version 1.1.0 is not declared",
    "CHECK": "no declared version has CHECK",
    "GC": "no declared version has GC",
    "STATUS": "no declared version has STATUS",
    "ipam": "the configuration has no ipam section",
    "ranges": "the ipam section has neither subnet nor ranges, so the pool cannot be shrunk",
    "derived": "a second network or address family cannot be derived from --cni-conf",
    "dns": "the configuration has no dns section",
}


class SetupError(Exception):
    """The suite cannot run as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that the fixtures and the collection hooks need."""

    plugin: Plugin
    cni_path: str
    conf: netconf.NetConf
    declared: tuple[str, ...]
    shortfalls: tuple[shortfalls.Shortfall, ...]

    @property
    def newest(self) -> str:
        return self.declared[-1]

    def traits(self) -> frozenset[str]:
        """What the marker `cni_needs` can name and this run has."""
        verbs = {v for v in ("CHECK", "GC", "STATUS") if spec.supporting(v, self.declared)}
        return self.conf.traits() | verbs | frozenset(self.declared)

    def header(self) -> list[str]:
        """Lines for the head of the report."""
        absent = [why for trait, why in _ABSENT.items() if trait not in self.traits()]
        return [
            f"CNI plugin: {self.plugin.path}",
            f"declared versions: {', '.join(self.declared)}",
            f"firewall rules compared: {'yes' if snapshot.NFT else 'no, nft is not installed'}",
            *(f"not applicable: {why}" for why in absent),
        ]

    def versions(self, argument: str) -> tuple[str, ...] | None:
        """The values of a version argument of a test; None for another argument."""
        strangers = tuple(v for v in spec.VERSIONS if v not in self.declared)
        found = {
            "version": self.declared,
            "rich_version": tuple(v for v in self.declared if spec.at_least(v, "0.3.0")),
            "check_version": spec.supporting("CHECK", self.declared),
            "version_without_check": spec.lacking("CHECK", self.declared),
            "version_without_gc": spec.lacking("GC", self.declared),
            "undeclared_version": (*strangers, "0.5.0", "1.1.99", "9.9.9"),
        }
        return found.get(argument)


def prepare(
    plugin: str,
    conf: str | None,
    cni_path: str | None,
    environment: Sequence[str],
    notes: str | None,
) -> Suite:
    """Reads the options; raises SetupError."""
    _require_machine()
    path = Path(os.path.abspath(plugin))  # not resolved: a link's own name is what counts
    if not os.access(path, os.X_OK) or path.is_dir():
        raise SetupError(f"--cni-plugin: {plugin} is not an executable file")
    try:
        body = netconf.load(Path(conf), path.name) if conf else netconf.derive(path.name)
        known = shortfalls.read(Path(notes)) if notes else ()
    except (netconf.ConfError, shortfalls.ShortfallError) as error:
        hint = "" if conf else "; give one by --cni-conf"
        raise SetupError(f"{error}{hint}") from error
    runner = Plugin(str(path), _variables(environment))
    search = ":".join(part for part in (str(path.parent), cni_path) if part)
    return Suite(runner, search, body, _declared(runner), known)


def _require_machine() -> None:
    if os.geteuid() != 0:
        raise SetupError("the suite makes network namespaces: run it as root")
    if shutil.which("ip") is None:
        raise SetupError("the suite needs the command ip of iproute2")
    sweep()


def _variables(environment: Sequence[str]) -> dict[str, str]:
    wrong = [pair for pair in environment if "=" not in pair]
    if wrong:
        raise SetupError(f"--cni-env: {wrong[0]!r} is not NAME=VALUE")
    pairs = (pair.split("=", 1) for pair in environment)
    return dict(pairs)


def _declared(plugin: Plugin) -> tuple[str, ...]:
    """Released versions that VERSION lists; 0.1.0, which has no VERSION, where it fails."""
    request = Request("VERSION", stdin=b'{"cniVersion": "1.0.0"}')
    with namespace() as node, tempfile.TemporaryDirectory() as folder:
        reply = plugin.with_folder(Path(folder)).run(request, node)
    try:
        listed = parse_object(reply.stdout).get("supportedVersions", [])
    except NotOneObject:
        listed = []
    return tuple(v for v in spec.VERSIONS if v in listed) or ("0.1.0",)


def absent_traits(needed: Sequence[str], suite: Suite) -> list[str]:
    return [trait for trait in needed if trait not in suite.traits()]
