"""`podwired check-config`: whether the daemon would take its files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from daemon.commands.options import DEFAULT_CONFIG, DONE, FAILED, tell
from daemon.config.schema import (
    EtcdSettings,
    KubernetesSettings,
    Settings,
    StaticSettings,
    load_settings,
)
from daemon.config.yaml import FILE_MAX, FileFault
from daemon.log import Log
from daemon.model import Snapshot
from daemon.routing.backends import backend_of
from daemon.routing.conflicts import find_contradictions
from daemon.sources.nodesfile import parse_nodes
from daemon.sources.opening import open_client
from daemon.sources.remote import SourceError

Row = tuple[str, str]
DESCRIPTION = "Say whether the configuration is right, and the list of nodes that it names."
EPILOG = """\
Nothing is changed, and it need not be the node itself where it is checked (the configuration names
it, then): what depends on the node's links and routes is said by `podwired status` there. Of a
source that is no file it is checked that podwire could speak to it; nobody is spoken to.

exit codes: 0 all files are right; 1 one is not, said with its line, or nodes contradict each
other, said each; 2 wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = f"the daemon's configuration (default: {DEFAULT_CONFIG})"
    parser.add_argument("config", metavar="FILE", nargs="?", type=Path, help=words)


def run(options: argparse.Namespace) -> int:
    """Check both files and print what they say; the exit status."""
    path = options.config or DEFAULT_CONFIG
    try:
        settings = load_settings(path)
        rows, contradictions = _check_source(settings)
    except (FileFault, SourceError) as fault:
        tell(str(fault))
        return FAILED
    print(render_summary(path, settings, rows, contradictions))
    return FAILED if contradictions else DONE


def _check_source(settings: Settings) -> tuple[list[Row], list[str]]:
    """What there is to say of it, and what is wrong in it. Raises FileFault, SourceError."""
    source = settings.source
    if not isinstance(source, StaticSettings):
        open_client(settings, source, Log()).check()
        rows = [("nodes", f"of {_describe(source)}"), ("this node", settings.node)]
        return [*rows, ("pod CIDRs in", ", ".join(map(str, source.cluster_cidrs)))], []
    snapshot = _load_nodes(source.path)
    contradictions = list(find_contradictions(settings, snapshot))
    mine = next((node for node in snapshot.nodes if node.name == settings.node), None)
    prefixes = ", ".join(map(str, mine.pod_cidrs)) if mine else "none"
    verdict = "can be read" if contradictions else "is right"
    nodes = ("nodes", f"{source.path} {verdict}: {len(snapshot.nodes)} nodes")
    return [
        nodes,
        ("this node", f"{settings.node}, pod CIDRs {prefixes or 'none'}"),
    ], contradictions


def _describe(source: KubernetesSettings | EtcdSettings) -> str:
    if isinstance(source, EtcdSettings):
        return f"etcd, {', '.join(source.endpoints)}, keys {source.prefix}"
    account = source.kubeconfig or "the pod's service account"
    return f"Kubernetes, namespace {source.namespace}, by {account}"


def _load_nodes(path: Path) -> Snapshot:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise FileFault(path, 0, f"could not be read: {error.strerror}") from error
    return parse_nodes(data, path)


def render_summary(
    path: Path, settings: Settings, source: Sequence[Row], contradictions: Sequence[str] = ()
) -> str:
    """What the files say, for a person to compare with what was meant."""
    rows = [
        ("configuration", f"{path} is right"),
        *source,
        ("back end", _backend(settings)),
        ("CNI file", str(settings.conflist.path) if settings.conflist else "not written"),
        ("journal", f"{settings.journal.path}, at most {settings.journal.max_bytes} bytes"),
    ]
    rows += [("!", text) for text in contradictions]
    return "\n".join(f"{name:<15}{text}" for name, text in rows)


def _backend(settings: Settings) -> str:
    vxlan, device = settings.vxlan, backend_of(settings).device
    if not device:
        return settings.backend
    return f"{settings.backend}, VNI {vxlan.vni}, UDP port {vxlan.port}, device {device}"
