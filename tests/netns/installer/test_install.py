"""packaging/install and packaging/uninstall: onto a node, again, over others' files, off again."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.netns.installer.place import ROOT, Place, Used
from tests.pytest_netns import changes, snapshot

COMMANDS = ("podwire-ipam", "podwired", "podwirectl")
PLUGINS = ("bridge", "podwire", "podwire-ipam", "ptp")
COMPILER = re.compile(r"(.*-)?(gcc|cc|clang|tcc|c\d\d)(-[\d.]+)?")
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent"}
"""What pip needs to find no package at all."""


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
        while not enough.wait(0.02):
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
        "bridge.set-aside-by-podwire": "the reference plugin",
        "ptp.set-aside-by-podwire": "gone-with-an-upgrade",
    }  # fmt: skip
    assert all(map(place.answers, PLUGINS))
    folder = place.prefix / "venv" / "bin"
    assert place.commands() == {n: str(folder / n) for n in COMMANDS}
    for command in place.commands():
        done = subprocess.run([place.bin / command, "--help"], capture_output=True, check=True)
        assert done.stdout.startswith(f"usage: {command}".encode())
    share = place.bin.parent / "share"
    completions = share / "bash-completion" / "completions"
    assert {path.name for path in completions.iterdir()} == set(COMMANDS)
    assert "complete -F" in (completions / "podwirectl").read_text()
    assert "#compdef podwirectl" in (share / "zsh/site-functions/_podwirectl").read_text()
    fish = share / "fish" / "vendor_completions.d"
    assert {path.name for path in fish.iterdir()} == {f"{name}.fish" for name in COMMANDS}
    assert "complete -c podwirectl" in (fish / "podwirectl.fish").read_text()
    first = place.environments()
    assert len(first) == 1
    # A prefix like /opt is not podwire's alone.
    others = {"venv-mine", "venv-20260101000000-1", "venv-2026"}
    for name in others:
        (place.prefix / name).mkdir()
        (place.prefix / name / "file").touch()

    with called_all_the_time(place, "bridge") as answers:
        told = place.install()
    assert "compiler" not in told
    assert "set aside" not in told
    assert not is_python(place.cni_bin / "podwire")
    assert all(map(place.answers, PLUGINS))
    assert answers
    # A script's interpreter opens it once more by its path (fs/binfmt_script.c), and finds a
    # compiled program where that took its place in between: that one call has to be made again.
    assert answers.count(False) <= 1
    # A daemon that was started before goes on with the old one.
    assert place.environments()[:-1] == first
    assert len(place.environments()) == 2

    installed = sorted(place.prefix.iterdir()), place.names()
    failed = place.run("install", *place.folders, **NO_INDEX)
    assert failed.returncode != 0
    assert (sorted(place.prefix.iterdir()), place.names()) == installed
    assert place.answers("podwire")

    other = tmp_path / "other"
    refused = place.run("install", "--cni-bin", other, "--bin", place.bin)
    assert refused.returncode == 1
    assert f"{place.prefix} is linked into {place.cni_bin} already" in refused.stderr
    refused = place.run("install", "--cni-bin", place.cni_bin, "--bin", other)
    assert refused.returncode == 1
    assert f"{place.prefix} has its commands in {place.bin} already" in refused.stderr
    assert not other.exists()
    assert (sorted(place.prefix.iterdir()), place.names()) == installed

    assert place.run("uninstall", "--keep-network").returncode == 0
    assert place.names() == before
    assert place.commands() == {}
    assert not completions.parent.exists()
    assert {path.name for path in place.prefix.iterdir()} == others
    again = place.run("uninstall", "--keep-network")
    assert again.returncode == 1
    assert "has no installation of podwire" in again.stderr

    (place.prefix / "venv").mkdir()
    refused = place.run("install", *place.folders)
    assert refused.returncode == 1
    assert f"{place.prefix}/venv is not podwire's" in refused.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--as", "sbr"], "--as sbr: podwire cannot stand in for that"),
        (["--as", "../bridge"], "cannot stand in"),
        (["--cni-bin", "relative"], "must be absolute paths"),
        (["--bin", "relative"], "must be absolute paths"),
        (["--cni-bin"], "--cni-bin needs a folder"),
        (["--nonsense"], "packaging/install [--prefix DIR]"),
    ],
)
def test_refused_before_anything_is_made(place: Place, words: list[str], reason: str) -> None:
    done = place.run("install", *place.folders, *words)
    assert done.returncode in (1, 2)
    assert reason in done.stderr
    assert not place.prefix.exists()
    assert not place.cni_bin.exists()
    assert not place.bin.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_others_are_left_alone(place: Place, command: str) -> None:
    place.bin.mkdir()
    (place.bin / command).symlink_to("/elsewhere/gone")
    done = place.run("install", *place.folders)
    assert done.returncode == 1
    assert f"{place.bin / command} is not this installation's: move it away" in done.stderr
    assert place.commands() == {command: "/elsewhere/gone"}
    assert not place.prefix.exists()
    assert not place.cni_bin.exists()


# -- interrupted

MAKE_VENV = """#!/usr/bin/python3
import sys, time
from pathlib import Path
venv = Path(sys.argv[2])
venv.mkdir()
(venv / "pyvenv.cfg").touch()
if Path("packaging/wait").exists():
    time.sleep(60)
(venv / "bin").mkdir()
for program in Path("{}").glob("podwi*"):
    (venv / "bin" / program.name).symlink_to(program)
"""
"""In place of packaging/make-venv: an environment of links, half made while `wait` is there."""


@pytest.fixture
def quick(place: Place, podwire_bin: Path) -> Place:
    programs = (podwire_bin / "podwire").resolve().parent
    (place.source / "packaging" / "make-venv").write_text(MAKE_VENV.format(programs))
    return place


def interrupt(place: Place, number: signal.Signals) -> None:
    """An installation that this signal ends while it makes the environment."""
    wait = place.source / "packaging" / "wait"
    wait.touch()
    before = set(place.prefix.glob("venv-*"))
    # nohup and shells in the background have programs ignore some signals, for good.
    argv: list[str | Path] = ["env", "--default-signal", place.source / "packaging" / "install"]
    argv += ["--prefix", place.prefix, *place.folders]
    process = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not set(place.prefix.glob("venv-*/pyvenv.cfg")) - {p / "pyvenv.cfg" for p in before}:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, number)  # as a terminal does
        assert process.wait(60) != 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait.unlink()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_an_interrupted_installation_removes_what_it_began(quick: Place, name: str) -> None:
    interrupt(quick, signal.Signals[name])
    assert not list(quick.prefix.iterdir())
    quick.install()
    installed = sorted(quick.prefix.iterdir())
    interrupt(quick, signal.Signals[name])
    assert sorted(quick.prefix.iterdir()) == installed
    assert quick.answers("podwire")


def test_what_a_killed_installation_left_goes_with_the_next(quick: Place) -> None:
    interrupt(quick, signal.SIGKILL)
    quick.bin.mkdir(exist_ok=True)
    for folder, name in ((quick.prefix, ".venv.new"), (quick.bin, ".podwired.new")):
        (folder / name).symlink_to(quick.prefix / "venv" / "bin")  # a folder, later
    quick.install()
    quick.install()
    assert len(list(quick.prefix.glob("venv-*"))) == 2
    assert set(quick.commands()) == set(COMMANDS)
    assert not (quick.prefix / ".venv.new").is_symlink()


def test_what_a_killed_installation_left_goes_with_the_uninstallation(quick: Place) -> None:
    quick.install()
    interrupt(quick, signal.SIGKILL)
    (quick.prefix / ".venv.new").symlink_to(quick.prefix / "venv-20260101000000-1")
    for name in COMMANDS:
        (quick.bin / f".{name}.new").symlink_to(quick.prefix / "venv" / "bin" / name)
    done = quick.run("uninstall", "--keep-network")
    assert done.returncode == 0, done.stderr
    assert not quick.prefix.exists()
    assert not list(quick.bin.iterdir())


def test_all_may_read_what_is_installed(quick: Place) -> None:
    before = os.umask(0o077)
    try:
        quick.install()
    finally:
        os.umask(before)
    share = quick.bin.parent / "share"
    folders = {path for path in share.rglob("*") if path.is_dir()}
    folders |= {share, quick.bin, quick.cni_bin, quick.prefix, (quick.prefix / "venv").resolve()}
    assert {path for path in folders if path.stat().st_mode & 0o777 != 0o755} == set()


# -- off a node that podwire was used on


SYSTEMCTL = """#!/bin/sh
echo "$@" >>/run/systemctl-calls
"""


def test_all_that_it_made_goes_if_asked(used: Used) -> None:
    before, files = snapshot(used.node.ns), used.files()
    used.start()
    assert changes(before, snapshot(used.node.ns))
    installed, running = used.place.commands(), snapshot(used.node.ns)
    refused = used.uninstall("--purge", "--config", used.config)
    assert refused.returncode == 1
    assert "a daemon runs" in refused.stderr
    assert "podwire is installed yet" in refused.stderr
    assert used.place.commands() == installed
    assert changes(running, snapshot(used.node.ns)) == []

    used.kill()
    # A store that cannot be read may be of pods that run.
    used.node.run(["touch", "/var/lib/podwire/podwire.db", "/var/lib/podwire/podwire.db-wal"])
    unsure = used.uninstall("--purge", "--config", used.config)
    assert unsure.returncode == 1
    assert "whether pods run cannot be seen" in unsure.stderr
    done = used.uninstall("--purge", "--force", "--config", used.config)
    assert (done.returncode, done.stderr) == (0, "")
    for thing in ("route 10.244.2.0/24", "link podwire-vxlan", f"file {used.conflist}"):
        assert f"removed {thing}" in done.stdout
    assert changes(before, snapshot(used.node.ns)) == []
    assert used.files() == files
    assert used.place.commands() == {}
    assert not used.conflist.exists()
    assert not used.place.prefix.exists()


def test_what_the_configuration_moved_goes_from_there_and_nothing_beside_it(
    used: Used, tmp_path: Path
) -> None:
    moved = {
        "dataDir": str(tmp_path / "data"),
        "socket": str(tmp_path / "run" / "s"),
        "journal": {"path": str(tmp_path / "log" / "j")},
        "statusFile": str(tmp_path / "status"),
    }
    used.config.write_text(json.dumps({**json.loads(used.config.read_text()), **moved}))
    used.node.run(["mkdir", "-p", "/var/lib/podwire", "/run/podwire"])
    used.node.run(["touch", "/var/lib/podwire/podwire.db", "/run/podwire/status.json"])
    files = used.files()
    used.start()
    used.kill()
    assert (tmp_path / "run" / "s").exists()
    damaged = "podwire.db.damaged-20260101T000000Z"
    mine = {"mine", "podwire.db.backup-of-admin", "podwire.db-2026", "podwire.db.damaged-mine"}
    for name in ("podwire.db-wal", "podwire.db", damaged, f"{damaged}.2-wal", *mine):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    done = used.uninstall("--purge", "--force", "--config", used.config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"removed {tmp_path}/data/podwire.db\n" in done.stdout
    assert f"removed {tmp_path}/log/j\n" in done.stdout
    assert {p.name for p in (tmp_path / "data").iterdir()} == mine
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "log").iterdir())
    assert not list(tmp_path.glob("status*"))
    assert used.files() == files


def test_data_of_another_installation_is_left_alone(used: Used, tmp_path: Path) -> None:
    units = Path("/etc/systemd/system")
    used.node.run(["mount", "-t", "tmpfs", "podwire-test", units])
    other = tmp_path / "other" / "venv" / "bin" / "podwired"
    other.parent.mkdir(parents=True)
    other.touch()
    used.node.run(["tee", units / "podwired.service"], stdin=f"ExecStart={other} run\n")
    used.node.run(["mkdir", "-p", "/var/lib/podwire"])
    used.node.run(["touch", "/var/lib/podwire/podwire.db"])
    files, installed = used.files(), used.place.commands()
    done = used.uninstall("--purge")
    assert done.returncode == 1
    assert f"podwire is installed in {tmp_path}/other too" in done.stderr
    assert (used.files(), used.place.commands()) == (files, installed)
    assert used.uninstall("--purge", "--force", "--config", used.config).returncode == 0


def test_it_stays_otherwise(used: Used) -> None:
    used.start()
    used.kill()
    before, files, content = snapshot(used.node.ns), used.files(), used.conflist.read_text()
    done = used.uninstall("--keep-network")
    assert (done.returncode, done.stderr) == (0, "")
    assert changes(before, snapshot(used.node.ns)) == []
    assert used.files() == files
    assert used.conflist.read_text() == content
    assert not used.place.prefix.exists()


@pytest.mark.parametrize("booted", [True, False])
@pytest.mark.parametrize(("ours", "earlier"), [(True, False), (True, True), (False, True)])
def test_units_that_run_it_go_too(
    used: Used, tmp_path: Path, booted: bool, ours: bool, earlier: bool
) -> None:
    """earlier: the version before had a socket unit."""
    units = Path("/etc/systemd/system")
    used.node.run(["mount", "-t", "tmpfs", "podwire-test", units])
    used.node.run(["touch", units / "others.service"])
    shipped = ROOT / "packaging" / "systemd"
    if earlier:
        used.node.run(["touch", units / "podwired.socket"])
    unit = (shipped / "podwired.service").read_text()
    assert "/opt/podwire/" in unit
    if ours:
        unit = unit.replace("/opt/podwire/", f"{used.place.prefix}/")
    used.node.run(["tee", units / "podwired.service"], stdin=unit)
    # systemd itself cannot run in here: what it is asked to do is noted.
    folder = tmp_path / "commands"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    if booted:
        used.node.run(["mkdir", "-p", "/run/systemd/system"])
    script = used.place.source / "packaging" / "uninstall"
    path = f"{folder}:/usr/bin:/bin"
    used.node.run([script, "--prefix", used.place.prefix], env={"PATH": path})
    ours_there = ["podwired.socket", "podwired.service"][not earlier :]
    kept = {"others.service", *(() if ours else ours_there)}
    assert set(used.node.run(["ls", units]).stdout.split()) == kept
    calls = used.node.run(["cat", "/run/systemctl-calls"], check=False).stdout
    disabled = "".join(f"--quiet disable --now {unit}\n" for unit in ours_there)
    wanted = f"{disabled}daemon-reload\n"
    assert calls == (wanted if ours and booted else "")
