"""`podwired uninstall`: off this node, what was installed on it and what the daemon made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cni_plugin.attachment import DAMAGE, load_record
from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.reclaim import reclaim
from cni_plugin.store_index import find_stores
from daemon.commands.cleanup import clean_node
from daemon.installer.conflists import put_back_conflists
from daemon.installer.manifest import Manifest, ManifestFault, aside, changing_manifest
from daemon.installer.programs import remove_files
from daemon.log import printable
from daemon.options import NodeFiles, Unusable, absolute, add_config, files_of, settings_of
from daemon.routing.conflist import network_of
from ipam.errors import IpamError
from ipam.files import Files
from ipam.store import Owner, open_store
from kernel.errors import KernelError

DESCRIPTION = """\
Take off this node what podwire put there: the CNI configuration, routes to other nodes' pods, the
VXLAN device, nftables rules, what this node published, and the executables in the directory of CNI
plugins. What was set aside for them is put back. Nothing else is touched.

Stop the daemon first, and drain the node: pods of podwire that run are named, and nothing is done.
A run that was interrupted is finished by the next one. What this node published in
Kubernetes or etcd stays where it cannot be withdrawn, as when the cluster is gone: a warning says
for how long.

examples:
  podwired uninstall
  podwired uninstall --purge          the addresses of pods are forgotten, too
"""
_SHOWN = 5
"""Pods that are named; of more than these, the number is printed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config(parser)
    words = "where the record of the installation is kept (default: the configuration's dataDir)"
    parser.add_argument("--data-dir", metavar="DIR", type=absolute, help=words)
    words = "remove store, journal, status and socket as well"
    parser.add_argument("--purge", action="store_true", help=words)
    words = "do it while pods of podwire run: they lose their way to other nodes, and keep the rest"
    parser.add_argument("--force", action="store_true", help=words)
    words = "only look whether pods of podwire run: exit status 1 where they do"
    parser.add_argument("--check", action="store_true", help=words)
    words = "take the executables off alone: pods, routes and the CNI configuration stay"
    parser.add_argument("--keep-network", action="store_true", help=words)


def run(options: argparse.Namespace) -> int:
    """Remove, and print what was removed; the exit status."""
    files = files_of(options.config)
    if not options.keep_network:
        _refuse_pods(files, force=options.force)
    if options.check:
        return 0
    faults: Sequence[str] = ()
    lines: list[str] = []
    if not options.keep_network:
        settings = settings_of(options.config)
        removed = clean_node(settings, files, "podwired uninstall", data=False)
        lines, faults = list(removed.describe()), removed.faults
        if removed.published:  # no reason to stop: the cluster may be gone for good
            print(f"podwired: warning: {printable(removed.published)}", file=sys.stderr)
    if not faults:
        folder = options.data_dir or files.data_dir
        lines += _take_off(folder, conflists=not options.keep_network)
    if options.purge and not faults:
        removed = clean_node(None, files, "podwired uninstall", data=True)
        lines, faults = lines + list(removed.describe()), removed.faults
    print("\n".join(lines) or "nothing was left")
    if faults:
        raise Unusable("podwire is installed yet: " + "; ".join(faults))
    return 0


def _take_off(folder: Path, *, conflists: bool) -> list[str]:
    if not folder.is_dir():
        return []
    try:
        with changing_manifest(folder) as manifest:
            lines = _give_back(manifest) if conflists else []
            lines += remove_files(manifest)
            if manifest.is_empty:
                manifest.remove()
    except ManifestFault as fault:
        raise Unusable(str(fault)) from fault
    with suppress(OSError):  # unless it has the store, or the journal
        folder.rmdir()
    return lines


def _give_back(manifest: Manifest) -> list[str]:
    """Put back CNI configurations, but none of podwire's: its executables are about to go."""
    own = [kept for kept in map(aside, manifest.conflists) if network_of(kept) is not None]
    for kept in own:
        kept.unlink()
    return [f"removed {kept}" for kept in own] + put_back_conflists(manifest)


def _refuse_pods(files: NodeFiles, *, force: bool) -> None:
    """Raise Unusable where pods of podwire run."""
    try:
        pods = [pod for folder in _stores(files) for pod in _pods(folder)]
    except (IpamError, KernelError) as error:
        if force:
            return
        raise Unusable(f"whether pods run cannot be seen: {error}; --force goes on") from error
    if pods and not force:
        more = f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else ""
        are = "1 pod of podwire runs" if len(pods) == 1 else f"{len(pods)} pods of podwire run"
        what = "drain the node, or remove them, first; --force goes on"
        raise Unusable(f"{are} on this node ({', '.join(pods[:_SHOWN])}{more}): {what}")


def _stores(files: NodeFiles) -> list[Path]:
    found = find_stores(DEFAULT_INDEX, files.data_dir)
    return [folder for folder in found if Files(folder).database.exists()]


def _pods(folder: Path) -> list[str]:
    with open_store(folder, create=False) as store:
        reclaim(store, lambda _line: None)
        with store.read() as tx:
            return [_name(owner, text) for owner, text in tx.attachments()]


def _name(owner: Owner, text: str) -> str:
    with suppress(*DAMAGE):
        if pod := load_record(text).pod:
            return pod
    return f"{owner.container_id[:12]} {owner.ifname}"
