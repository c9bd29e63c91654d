"""`podwirectl check-config`: whether the daemon would take its files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ctl.output import DONE, FAILED, fields, warn
from daemon.config import DEFAULT_CONFIG
from daemon.config.load import load_settings
from daemon.config.schema import Settings, SourceSettings
from daemon.config.yaml import FileFault, read_file
from daemon.log import Log
from daemon.routing.backends import backend_of
from daemon.routing.conflicts import find_contradictions
from daemon.sources import open_client
from daemon.sources.remote import SourceError
from daemon.sources.static import parse_nodes

Row = tuple[str, str]
DESCRIPTION = "Check podwired.yaml and the list of nodes that it names."
EPILOG = """\
Nothing is changed, and no server is contacted. The check may run on another machine, if the
configuration names the node. `podwirectl status` on the node itself reports what depends on its
links and routes.

exit codes: 0 all files are right; 1 a file is wrong (its line is printed), or nodes contradict
each other (each conflict is printed); 2 wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = f"the daemon's configuration (default: {DEFAULT_CONFIG})"
    parser.add_argument("config", metavar="FILE", nargs="?", type=Path, help=words)


def run(options: argparse.Namespace) -> int:
    """Check both files and print a summary; the exit status."""
    path = options.config or DEFAULT_CONFIG
    try:
        settings = load_settings(path)
        rows, contradictions = _check_source(settings)
    except (FileFault, SourceError) as fault:
        warn(str(fault))
        return FAILED
    print(render_summary(path, settings, rows, contradictions))
    return FAILED if contradictions else DONE


def _check_source(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows of the summary, and the contradictions. Raises FileFault, SourceError."""
    source = settings.source
    if not source.static:
        open_client(settings, Log()).check()
        rows = [("nodes", f"of {_describe(source)}"), ("this node", settings.node)]
        ranges = ", ".join(map(str, source.cluster_cidrs)) or "kubeadm's podSubnet"
        return [*rows, ("pod CIDRs in", ranges)], []
    snapshot = parse_nodes(read_file(source.static), source.static)
    contradictions = list(find_contradictions(settings, snapshot))
    mine = next((node for node in snapshot.nodes if node.name == settings.node), None)
    prefixes = ", ".join(map(str, mine.pod_cidrs)) if mine else "none"
    verdict = "can be read" if contradictions else "is right"
    nodes = ("nodes", f"{source.static} {verdict}: {len(snapshot.nodes)} nodes")
    return [
        nodes,
        ("this node", f"{settings.node}, pod CIDRs {prefixes or 'none'}"),
    ], contradictions


def _describe(source: SourceSettings) -> str:
    if source.etcd:
        return f"etcd, {', '.join(source.etcd.endpoints)}, keys {source.etcd.prefix}"
    assert source.kubernetes is not None  # noqa: S101 - there is exactly one of them
    account = source.kubernetes.kubeconfig or "the pod's service account"
    return f"Kubernetes, namespace {source.kubernetes.namespace}, by {account}"


def render_summary(
    path: Path, settings: Settings, source: Sequence[Row], contradictions: Sequence[str] = ()
) -> str:
    """The contents of the files as a summary for the operator."""
    rows = [
        ("configuration", f"{path} is right"),
        *source,
        ("back end", _backend(settings)),
        ("CNI file", str(settings.conflist.path) if settings.conflist else "not written"),
        ("journal", f"{settings.journal.path}, at most {settings.journal.max_bytes} bytes"),
    ]
    rows += [("!", text) for text in contradictions]
    return fields(rows, 15)


def _backend(settings: Settings) -> str:
    vxlan, device = settings.vxlan, backend_of(settings).device
    if not device:
        return settings.backend
    return f"{settings.backend}, VNI {vxlan.vni}, UDP port {vxlan.port}, device {device}"
