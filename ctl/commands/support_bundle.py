"""`podwirectl support-bundle`: everything that a maintainer asks for, in one file."""

from __future__ import annotations

import argparse
import io
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ctl.bundle.parts import PART_MAX, Part, parts_of
from ctl.bundle.redact import redact
from ctl.output import DONE, create_private, warn
from daemon.log import printable
from daemon.options import Unusable, add_config, default_files, files_of, settings_of

DESCRIPTION = """\
Collect what a maintainer asks for into one .tar.gz: what podwirectl's commands show, the daemon's
files and log, the node's network as its kernel has it."""
EPILOG = """\
examples:
  podwirectl support-bundle                    podwire-HOST-TIME.tar.gz in this folder
  podwirectl support-bundle /root/case.tar.gz
  podwirectl support-bundle - | ssh me@desk 'cat >case.tar.gz'

Left out are kubeconfig files, tokens, certificates, environments, and the contents of other
plugins' configurations; what looks like a secret in the rest is replaced by [removed]. Addresses,
names of pods and nodes, and rules are in it. Look at it before you send it: it is plain text, 4 MiB
of each part at most. The file is readable by root alone; one that is there is not replaced.

Nothing is sent, and the daemon need not run. What could not be collected is named in missing.txt.

exit codes: 0 written; 1 not written; 2 wrong usage
"""
TOTAL_MAX = 96 << 20
"""Bytes of all parts together, before they are compressed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = "where to write it, - for standard output (default: podwire-HOST-TIME.tar.gz)"
    parser.add_argument("file", metavar="FILE", nargs="?", default="", help=words)
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Collect and write; the exit status."""
    name = default_name(platform.node(), time.gmtime())
    files, static = default_files(), None
    with suppress(Unusable):  # the broken file itself is in the bundle
        files, settings = files_of(options.config), settings_of(options.config)
        static = settings.source.static if settings else None
    parts = parts_of(files, options.config, static)

    def report(part: str) -> None:
        if not options.quiet:
            print(f"collecting {part}", file=sys.stderr)

    if options.file == "-":
        missing = _write(sys.stdout.buffer, name, parts, report)
    else:
        path = Path(options.file or f"{name}.tar.gz")
        with create_private(path) as file:
            try:
                missing = _write(file, name, parts, report)
            except BaseException:
                path.unlink()
                raise
        print(path)
    if missing and not options.quiet:
        warn(f"{len(missing)} parts are missing, see missing.txt: {printable(missing[0])}, ...")
    return DONE


def default_name(host: str, moment: time.struct_time) -> str:
    """The folder in the archive, and the beginning of its name."""
    plain = re.sub(r"[^A-Za-z0-9.-]", "-", host) or "node"
    return f"podwire-{plain}-{time.strftime('%Y%m%dT%H%M%SZ', moment)}"


def _write(
    file: IO[bytes], folder: str, parts: Iterable[Part], report: Callable[[str], None]
) -> list[str]:
    """Write a .tar.gz; what is not in it, with the reasons. Raises OSError.

    folder: the top one in the archive. report: takes the name of each part before it is collected.
    """
    missing: list[str] = []
    total = 0
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
        for name, collect in parts:
            report(name)
            try:
                content = redact(collect()[:PART_MAX].decode(errors="replace")).encode()
            except OSError as error:
                missing.append(f"{name}: {error}")
                continue
            if total + len(content) > TOTAL_MAX:
                missing.append(f"{name}: the bundle would be larger than {TOTAL_MAX >> 20} MiB")
                continue
            total += len(content)
            _add(archive, f"{folder}/{name}", content)
        _add(archive, f"{folder}/missing.txt", "".join(f"{each}\n" for each in missing).encode())
    return missing


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))
