"""packaging/install and packaging/uninstall: onto a node, again, over others' files, off again."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMPILER = re.compile(r"(.*-)?(gcc|cc|clang|tcc|c\d\d)(-[\d.]+)?")
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent"}
"""What pip needs to find no package at all."""

Done: TypeAlias = "subprocess.CompletedProcess[str]"

ON_TMPFS = """
mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/podwire || exit 99
touch /var/lib/podwire/podwire.db /var/lib/podwire/podwire.db-wal
"$@" >&2 && ls -A /var/lib
"""


@dataclass(frozen=True)
class Place:
    """A release unpacked somewhere, and where it is installed to."""

    source: Path
    prefix: Path
    cni_bin: Path

    def run(
        self, script: str, *words: str | Path, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a script of packaging/."""
        argv = [self.source / "packaging" / script, "--prefix", self.prefix, *words]
        inherited = {k: v for k, v in os.environ.items() if k != "CC"}
        return subprocess.run(
            argv, env={**inherited, **env}, capture_output=True, text=True, check=False
        )

    def install(self, *words: str | Path, **env: str) -> str:
        """A successful installation's words."""
        done = self.run("install", "--cni-bin", self.cni_bin, *words, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answers(self, name: str) -> bool:
        """Whether the plugin of that name answers VERSION."""
        env = {"CNI_COMMAND": "VERSION", "PODWIRE_SOCKET": str(self.prefix / "no-daemon")}
        done = subprocess.run(
            [self.cni_bin / name], env=env, input=b"{}", capture_output=True, check=False
        )
        return done.returncode == 0 and "1.0.0" in json.loads(done.stdout)["supportedVersions"]

    def environments(self) -> list[str]:
        """The Python environments that are there; the one in use last."""
        used = (self.prefix / "venv").resolve()
        found = [path for path in self.prefix.glob("venv-*") if path != used]
        return [*sorted(path.name for path in found), used.name]

    def names(self) -> dict[str, str]:
        """What the runtime finds in its folder: a link's target, or a file's text."""
        found = sorted(self.cni_bin.iterdir())
        return {p.name: os.readlink(p) if p.is_symlink() else p.read_text() for p in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    ignored = shutil.ignore_patterns("build", ".*", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    return Place(source, tmp_path / "opt" / "podwire", tmp_path / "cni" / "bin")


def path_without_compilers(folder: Path) -> str:
    """A PATH with all commands of this machine's but the compilers."""
    folder.mkdir()
    commands = (p for d in os.get_exec_path() if Path(d).is_dir() for p in Path(d).iterdir())
    for command in commands:
        if not COMPILER.fullmatch(command.name) and not (folder / command.name).is_symlink():
            (folder / command.name).symlink_to(command)
    assert not any(shutil.which(name, path=folder) for name in ("cc", "gcc", "clang", "musl-gcc"))
    return str(folder)


@contextmanager
def called_all_the_time(place: Place, name: str) -> Iterator[list[bool]]:
    """A runtime that calls the plugin meanwhile; whether it answered, call by call."""
    answers: list[bool] = []
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            answers.append(place.answers(name))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield answers
    finally:
        enough.set()
        caller.join()


def is_python(program: Path) -> bool:
    return program.read_bytes().startswith(b"#!")


def test_on_a_node_again_and_off(place: Place, tmp_path: Path) -> None:
    """Without a compiler first, then with one; the runtime never misses the plugin."""
    place.cni_bin.mkdir(parents=True)
    (place.cni_bin / "bridge").write_text("the reference plugin")
    (place.cni_bin / "ptp").symlink_to("gone-with-an-upgrade")
    before = place.names()
    told = place.install("--as", "bridge,ptp", PATH=path_without_compilers(tmp_path / "commands"))
    assert told.count("no C compiler") == 1
    assert is_python(place.cni_bin / "podwire")
    program = str(place.prefix / "venv" / "bin" / "podwire")
    assert place.names() == {
        "bridge": program, "podwire": program, "podwire-ipam": f"{program}-ipam", "ptp": program,
    }  # fmt: skip
    assert all(map(place.answers, place.names()))
    first = place.environments()
    assert len(first) == 1

    with called_all_the_time(place, "bridge") as answers:
        told = place.install()
    assert "compiler" not in told
    assert "set aside" not in told
    assert not is_python(place.cni_bin / "podwire")
    assert all(map(place.answers, place.names()))
    assert answers
    assert all(answers)
    # A daemon that was started before goes on with the old one.
    assert place.environments()[:-1] == first
    assert len(place.environments()) == 2

    installed = sorted(place.prefix.iterdir()), place.names()
    failed = place.run("install", "--cni-bin", place.cni_bin, **NO_INDEX)
    assert failed.returncode != 0
    assert (sorted(place.prefix.iterdir()), place.names()) == installed
    assert place.answers("podwire")

    other = tmp_path / "other"
    refused = place.run("install", "--cni-bin", other)
    assert refused.returncode == 1
    assert f"{place.prefix} is linked into {place.cni_bin} already" in refused.stderr
    assert not other.exists()
    assert (sorted(place.prefix.iterdir()), place.names()) == installed

    assert place.run("uninstall").returncode == 0
    assert place.names() == before
    assert not place.prefix.exists()
    again = place.run("uninstall")
    assert again.returncode == 1
    assert "has no installation of podwire" in again.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--as", "firewall"], "--as firewall: podwire cannot stand in for that"),
        (["--as", "../bridge"], "cannot stand in"),
        (["--cni-bin", "relative"], "must be absolute paths"),
        (["--cni-bin"], "--cni-bin needs a folder"),
        (["--nonsense"], "packaging/install [--prefix DIR]"),
    ],
)
def test_refused_before_anything_is_made(place: Place, words: list[str], reason: str) -> None:
    done = place.run("install", "--cni-bin", place.cni_bin, *words)
    assert done.returncode in (1, 2)
    assert reason in done.stderr
    assert not place.prefix.exists()
    assert not place.cni_bin.exists()


def uninstall_with_a_store(place: Place, *words: str) -> str:
    """Uninstall where /var/lib is another one; what is left in that."""
    place.prefix.mkdir(parents=True)
    place.cni_bin.mkdir(parents=True)
    (place.prefix / "cni-bin").write_text(f"{place.cni_bin}\n")
    argv: list[str | Path] = ["unshare", "--mount", "--propagation", "private"]
    argv += ["sh", "-c", ON_TMPFS, "sh"]
    argv += [place.source / "packaging" / "uninstall", "--prefix", place.prefix, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not place.prefix.exists()
    return done.stdout


def test_the_store_goes_if_asked(place: Place) -> None:
    assert uninstall_with_a_store(place, "--data") == ""


def test_the_store_stays_otherwise(place: Place) -> None:
    assert uninstall_with_a_store(place) == "podwire\n"
