"""The programs that are measured: where they are, and which version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.pytest_netns import tools

VENV_BIN = Path(sys.executable).parent
DEBIAN = Path("/usr/lib/cni")
KINDNET = "sigs.k8s.io/kindnet/cmd/cni-kindnet@latest"
_GO = ("go", "/usr/local/go/bin/go")
INSTALL_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Programs:
    """What is there.

    reference: folder of the reference plugins. daemon, kindnet: None where there is none.
    shim: whether podwire's executable is a compiled one, not a Python script. notes: what a
    reader of the results must know.
    """

    podwire: Path
    daemon: Path | None
    reference: Path
    reference_version: str
    kindnet: Path | None
    notes: tuple[str, ...] = ()

    @property
    def shim(self) -> bool:
        with self.podwire.open("rb") as file:
            return file.read(4) == b"\x7fELF"

    @property
    def podwire_version(self) -> str:
        return version("podwire")


def find_programs(kindnet: Path | None, tools_dir: Path, *, kindnet_plays: bool = True) -> Programs:
    """Look for all programs, installing cni-kindnet below tools_dir unless it is given.

    kindnet_plays: whether cni-kindnet is needed at all.
    """
    notes = []
    podwire, daemon = VENV_BIN / "podwire", VENV_BIN / "podwired"
    if not podwire.exists():
        raise FileNotFoundError(f"{podwire} is missing: run this as `make bench`")
    if not daemon.exists():
        notes.append("no podwired installed: podwire is measured without a daemon, in few rounds")
    reference, reference_version = _find_reference()
    if reference == DEBIAN:
        notes.append("without Go the peer is Debian's package, not the newest release")
    if kindnet is None and kindnet_plays:
        kindnet, why = install_go(KINDNET, tools_dir)
        notes += [f"cni-kindnet is not measured: {why}"] if why else []
    return Programs(
        podwire, daemon if daemon.exists() else None, reference, reference_version, kindnet,
        tuple(notes),
    )  # fmt: skip


def _find_reference() -> tuple[Path, str]:
    if "newest-reference" not in tools.missing():
        return tools.go_tools_directory(), _output("tests/tools/go-tools", "version", "plugins")
    query = ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"]
    return DEBIAN, f"{_output(*query)} (Debian)"


def _output(*argv: str) -> str:
    done = subprocess.run(argv, cwd=tools.ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def install_go(program: str, tools_dir: Path) -> tuple[Path | None, str]:
    """A Go program, as `go install` names it, or why there is none; installed once."""
    target = tools_dir.absolute() / program.partition("@")[0].rpartition("/")[2]
    if target.exists():
        return target, ""
    go = next((found for found in map(shutil.which, _GO) if found), None)
    if go is None:
        return None, "no Go here"
    # The database of cni-kindnet is SQLite by cgo, so it needs a C compiler.
    env = {**os.environ, "GOBIN": str(target.parent), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1"}
    try:
        done = subprocess.run(
            [go, "install", program], env=env, capture_output=True, text=True, check=False,
            timeout=INSTALL_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"go install took more than {INSTALL_TIMEOUT:g} s"
    if done.returncode:
        last = [line.strip() for line in done.stderr.strip().splitlines()][-1:]
        return None, f"go install failed: {' '.join(last)}"
    return target, ""
