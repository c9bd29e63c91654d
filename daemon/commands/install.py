"""`podwired install`: podwire's executables in a directory of CNI plugins."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cni_plugin.chained import STAND_INS
from cni_plugin.host import DEFAULT_DATA_DIR
from daemon.installer.host_files import put_host_files
from daemon.installer.manifest import Manifest, ManifestFault, changing_manifest
from daemon.installer.programs import put_programs
from daemon.options import Unusable, absolute, path_from_environment

DESCRIPTION = """\
Put podwire's executables into a directory of CNI plugins, where the container runtime finds them.

A file that is in their place is set aside, and `podwired uninstall` puts it back. At any instant
the runtime finds the old file or the new one. What was done is recorded; a second run changes what
differs, and goes on where the first one was interrupted. A running daemon keeps the executables
there. `packaging/install` of a copy of the sources makes the environment of podwire, and runs this.

examples:
  podwired install
  podwired install --cni-bin /usr/lib/cni --as bridge,portmap
"""
OWN = ("podwire", "podwire-ipam")
DEFAULT_CNI_BIN, DEFAULT_ETC = Path("/opt/cni/bin"), Path("/etc")


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = "where the container runtime looks for CNI plugins (%(default)s)"
    parser.add_argument("--cni-bin", metavar="DIR", type=absolute, help=words)
    parser.set_defaults(cni_bin=DEFAULT_CNI_BIN)
    words = f"reference plugins to replace, separated by commas: {', '.join(sorted(STAND_INS))}"
    parser.add_argument("--as", dest="names", metavar="NAME", type=_stand_ins, help=words)
    words = "the same, where no other file has the name"
    parser.add_argument("--if-missing", metavar="NAME", type=_stand_ins, help=words, default=())
    words = "copy the executable instead of linking to it: for a host without podwire's files"
    parser.add_argument("--copy", action="store_true", help=words)
    words = "where podwire's executables are (default: beside the Python that runs this)"
    parser.add_argument("--programs", metavar="DIR", type=absolute, help=words)
    words = (
        "where systemd-networkd and NetworkManager find files that keep them off podwire's links"
    )
    words += " and routes, if they are there (/etc; with --copy: none)"
    parser.add_argument("--etc", metavar="DIR", type=absolute, help=words)
    words = f"where the record of the installation is kept (default: {DEFAULT_DATA_DIR})"
    parser.add_argument("--data-dir", metavar="DIR", type=absolute, help=words)


def _stand_ins(text: str) -> tuple[str, ...]:
    for name in text.split(","):
        if name not in STAND_INS:
            raise argparse.ArgumentTypeError(f"podwire cannot stand in for {name!r}")
    return tuple(text.split(","))


def run(options: argparse.Namespace) -> int:
    """Put them there, and print what was done; the exit status."""
    programs = options.programs or Path(sys.executable).parent
    own, names = _own(programs, options.copy), options.names or ()
    sources = [(name, programs / name) for name in own]
    folder = data_dir_of(options)
    try:
        with changing_manifest(folder) as manifest:
            for name in (*names, *_missing(manifest, options)):
                sources.append((name, programs / OWN[0]))
            lines = put_programs(manifest, options.cni_bin, sources, copy=options.copy)
            if options.etc or not options.copy:
                lines += _put_host_files(manifest, options.etc)
    except ManifestFault as fault:
        raise Unusable(str(fault)) from fault
    print("\n".join(lines) or f"{options.cni_bin} has podwire already")
    return 0


def _put_host_files(manifest: Manifest, etc: Path | None) -> list[str]:
    """Raises OSError; where the folder was not asked for, that is a line: it may be read-only."""
    try:
        return put_host_files(manifest, etc or DEFAULT_ETC)
    except OSError as error:
        if etc is not None:
            raise
        why = f"{error.filename}: {error.strerror}"
        return [f"network managers of this host are not kept from podwire's links: {why}"]


def _missing(manifest: Manifest, options: argparse.Namespace) -> Iterator[str]:
    """Of the names to fill in, those that no other file has: podwire's own is renewed."""
    for name in options.if_missing:
        path = options.cni_bin / name
        if path in manifest.files or not os.path.lexists(path):
            yield name


def data_dir_of(options: argparse.Namespace) -> Path:
    """Where the manifest is."""
    found: Path | None = options.data_dir
    return found or path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)


def _own(programs: Path, copy: bool) -> tuple[str, ...]:
    """The names to put there. Raises Unusable where there is nothing that could be."""
    for name in OWN:
        if not os.access(programs / name, os.X_OK):
            raise Unusable(f"{programs / name} is missing: --programs names the folder that has it")
        if copy and (programs / name).read_bytes()[:2] == b"#!":
            why = "needs podwire's Python; install a C compiler and make podwire's environment anew"
            raise Unusable(f"{programs / name} cannot be copied: it {why}")
    return OWN
