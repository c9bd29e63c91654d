"""Directories of a container runtime that are full, read-only, links, or come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.netns.installer.place import ROOT, Used
from tests.netns.installer.test_takeover import OTHERS, conflists, eventually, status

EACH = "4"
"""Of so many changes of a command one is the last before it is killed. 1 takes a minute."""


@pytest.fixture
def programs(podwire_bin: Path) -> Path:
    return (podwire_bin / "podwire").resolve().parent


def install(used: Used, programs: Path, *words: str) -> list[str | Path]:
    """The command that installs copies; the data directory is on the node."""
    program = used.place.prefix / "venv" / "bin" / "podwired"
    folders = ("--cni-bin", used.place.cni_bin, "--programs", programs)
    return [*used.node.enter, program, "install", "--copy", *folders, *words]


def listed(used: Used, folder: Path) -> set[str]:
    return set(used.node.run(["ls", "-A", folder]).stdout.split())


def mount(used: Used, folder: Path, options: str) -> None:
    used.node.run(["mkdir", "-p", folder])
    used.node.run(["mount", "-t", "tmpfs", "-o", options, "podwire-test", folder])


def fill(used: Used, folder: Path) -> None:
    used.node.run(["dd", "if=/dev/zero", f"of={folder}/much", "bs=4k"], check=False)


@pytest.mark.parametrize("what", ["cni-bin", "data"])
@pytest.mark.parametrize("how", ["read-only", "full"])
def test_an_installation_that_fails_is_finished_later(
    used: Used, programs: Path, what: str, how: str
) -> None:
    """The message names the file; no runtime finds a part of one."""
    data, folder = Path("/var/lib/podwire"), used.place.cni_bin
    place = folder if what == "cni-bin" else data
    mount(used, place, "size=64k")
    used.node.run(["tee", folder / "bridge"], stdin="the reference plugin")
    if how == "full":
        fill(used, place)
    else:
        used.node.run(["mount", "-o", "remount,ro", place])
    before = listed(used, folder)
    argv = install(used, programs, "--as", "bridge")
    failed = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert f"podwired: {place}/" in failed.stderr, failed.stderr
    reason = "No space left on device" if how == "full" else "Read-only file system"
    assert reason in failed.stderr
    assert "Traceback" not in failed.stderr
    # What was set aside before has its place yet: the runtime finds the old plugin.
    assert used.node.run(["cat", folder / "bridge"]).stdout == "the reference plugin"
    assert not (listed(used, folder) - before) & {"podwire", "podwire-ipam"}

    used.node.run(["mount", "-o", "remount,rw,size=8m", place])
    subprocess.run(argv, capture_output=True, check=True)
    used.node.run(["rm", "-f", f"{place}/much"])
    aside = "bridge.set-aside-by-podwire"
    assert listed(used, folder) == {"podwire", "podwire-ipam", "bridge", aside}
    done = used.podwired("uninstall", "--keep-network")
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(used, folder) == {"bridge"}
    assert used.node.run(["cat", folder / "bridge"]).stdout == "the reference plugin"


def test_two_at_once(used: Used, programs: Path) -> None:
    """As the init container of a new DaemonSet, and an administrator's command."""
    names = ("bridge", "ptp", "portmap", "host-local")
    for name in names:
        (used.place.cni_bin / name).write_text(f"reference {name}")
    before = used.place.names()
    both = [
        subprocess.Popen(install(used, programs, "--as", ",".join(order)))
        for order in (names, names[::-1])
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    copy = (programs / "podwire").read_bytes()
    assert all((used.place.cni_bin / name).read_bytes() == copy for name in ("podwire", *names))
    done = used.podwired("uninstall", "--keep-network")
    assert (done.returncode, done.stderr) == (0, "")
    assert used.place.names() == before


def test_an_older_version_takes_the_place_of_a_newer_one(
    used: Used, programs: Path, tmp_path: Path
) -> None:
    (used.place.cni_bin / "bridge").write_text("the reference plugin")
    before, found = used.place.names(), []
    for version in ("2", "1"):
        folder = tmp_path / version
        folder.mkdir()
        for name in ("podwire", "podwire-ipam"):
            program = folder / name
            program.write_bytes((programs / name).read_bytes() + version.encode())
            program.chmod(0o755)
        argv = install(used, folder, "--as", "bridge")
        found.append(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert "set aside" in found[0]
    assert "set aside" not in found[1]
    assert (used.place.cni_bin / "bridge").read_bytes().endswith(b"1")
    assert (used.place.cni_bin / "bridge.set-aside-by-podwire").read_text() == before["bridge"]
    assert used.podwired("uninstall", "--keep-network").returncode == 0
    assert used.place.names() == before


# -- of another user: the reference plugins' archive and kubespray leave them so

KUBE = 1001
MANIFEST = ROOT / "packaging" / "kubernetes" / "daemonset.yaml"


def limit(used: Used, kind: str) -> None:
    """Give podwired's commands the capabilities of a container of the DaemonSet, and no others."""
    [container] = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"][kind]
    added = container["securityContext"]["capabilities"].get("add", [])
    words = ",".join(["-all", *(f"+{name.lower()}" for name in added)])
    link = used.place.prefix / "venv" / "bin" / "podwired"
    program = (link.with_name("podwirectl")).resolve().with_name("podwired")
    limits = f"--bounding-set={words} --inh-caps=-all --no-new-privs"
    link.unlink()
    link.write_text(f'#!/bin/sh\nexec setpriv {limits} {program} "$@"\n')
    link.chmod(0o755)


def give(folder: Path) -> None:
    """To another user, with all that is in it, which that user alone may read."""
    for path in (*folder.iterdir(), folder):
        os.chown(path, KUBE, KUBE)
        path.chmod(0o755 if path.is_dir() else 0o700)


def test_directories_of_another_user(used: Used, programs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net.d"
    configure(used, folder)
    folder.mkdir()
    contents = {folder / OTHERS[0]: "{}", used.place.cni_bin / "bridge": "the reference plugin"}
    # Of a file of another user that has this bit the kernel gives root no second name.
    contents[used.place.cni_bin / "ptp"] = "another one"
    for path, text in contents.items():
        path.write_text(text)
        give(path.parent)
    (used.place.cni_bin / "ptp").chmod(0o4755)
    limit(used, "initContainers")
    argv = install(used, programs, "--if-missing", "loopback", "--as", "bridge,ptp")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    own = {"podwire", "podwire-ipam", "loopback"}
    assert own <= listed(used, used.place.cni_bin)

    limit(used, "containers")
    used.start()
    taken = {"05-podwire.conflist", f"{OTHERS[0]}.set-aside-by-podwire"}
    eventually(lambda: conflists(used) == taken, lambda: status(used))
    (used.place.cni_bin / "podwire").unlink()
    eventually(lambda: own <= listed(used, used.place.cni_bin), lambda: status(used))
    used.kill()
    done = used.podwired("uninstall", "--config", used.config)
    assert (done.returncode, done.stderr) == (0, "")
    found = (*folder.iterdir(), *used.place.cni_bin.iterdir())
    assert {path: path.read_text() for path in found} == contents


# -- while the daemon runs


def test_a_full_directory_of_configurations(used: Used, tmp_path: Path) -> None:
    """While podwire's cannot be written, the others stay: pods need one of them."""
    folder = tmp_path / "net.d"
    configure(used, folder)
    mount(used, folder, "size=16k")
    for name in OTHERS:
        used.node.run(["tee", folder / name], stdin="{}")
    fill(used, folder)
    used.start(wait=False)
    eventually(lambda: "No space left on device" in status(used), lambda: status(used))
    assert set(OTHERS) <= listed(used, folder)
    assert "05-podwire.conflist" not in listed(used, folder)
    used.node.run(["rm", folder / "much"])
    eventually(lambda: not set(OTHERS) & listed(used, folder), lambda: listed(used, folder))
    assert "05-podwire.conflist" in listed(used, folder)


def test_links_that_lead_elsewhere_or_nowhere(used: Used, programs: Path, tmp_path: Path) -> None:
    """As k3s and microk8s have them."""
    real, folder = tmp_path / "real", tmp_path / "net.d"
    real.mkdir()
    folder.symlink_to(real)
    configure(used, folder)
    assert subprocess.run(install(used, programs), capture_output=True, check=True)
    (real / OTHERS[0]).write_text("{}")
    used.start()
    taken = {"05-podwire.conflist", f"{OTHERS[0]}.set-aside-by-podwire"}
    eventually(lambda: conflists(used) == taken, lambda: conflists(used))
    real.rename(tmp_path / "moved")  # the link leads nowhere now
    eventually(lambda: "restart the runtime" in status(used), lambda: status(used))
    assert folder.is_symlink()
    assert not real.exists()
    real.mkdir()
    eventually(lambda: conflists(used) == {"05-podwire.conflist"}, lambda: status(used))
    # The directory of the plugins goes, and comes back empty.
    used.place.cni_bin.rename(tmp_path / "old-bin")
    used.place.cni_bin.mkdir()
    found = partial(listed, used, used.place.cni_bin)
    eventually(lambda: found() == {"podwire", "podwire-ipam"}, found)


def configure(used: Used, folder: Path) -> None:
    used.conflist = folder / "05-podwire.conflist"
    settings = json.loads(used.config.read_text())
    settings["conflist"] = {"path": str(used.conflist), "exclusive": True}
    used.config.write_text(json.dumps(settings))


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_command_that_is_killed_anywhere_is_undone_by_the_next_uninstall(
    used: Used, programs: Path, command: str
) -> None:
    module = "tests.netns.installer.interrupted_commands"
    words: list[str | Path] = ["-m", module, programs, command, EACH]
    argv = [*used.node.enter, sys.executable, *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
