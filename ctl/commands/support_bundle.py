"""`podwirectl support-bundle`: everything that a maintainer asks for, in one file."""

from __future__ import annotations

import argparse
import platform
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from ctl.bundle.archive import create, write_archive
from ctl.bundle.parts import parts_of
from ctl.output import DONE, warn
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
        missing = write_archive(sys.stdout.buffer, name, parts, report)
    else:
        path = Path(options.file or f"{name}.tar.gz")
        with create(path) as file:
            try:
                missing = write_archive(file, name, parts, report)
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
