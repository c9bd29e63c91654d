"""The host's network managers, and podwire's links and routes: real systemd-networkd."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.__main__ import main
from daemon.installer.host_files import put_host_files
from daemon.installer.manifest import Manifest, load_manifest
from daemon.installer.programs import remove_files
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import Node

NETWORKD = "/lib/systemd/systemd-networkd"
EVERYTHING = "[Match]\nName=*\n[Network]\nAddress=198.51.100.1/24\n"
"""As an installer of a distribution, or an administrator, writes it."""
EXTERNAL = "192.0.2.254"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    for folder in ("systemd/network", "NetworkManager/conf.d"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
    return tmp_path / "etc"


@pytest.fixture
def linked(node: Node) -> Node:
    """A node with links and routes as podwire makes them."""
    for command in (
        "link add pw0123456789a type veth peer name pod",
        "link set pw0123456789a up",
        "address add 10.1.0.1/32 dev pw0123456789a",
        "route add 10.1.0.2/32 dev pw0123456789a proto 112",
        f"route add 10.9.0.0/24 via {EXTERNAL} dev eth0 proto 113",
    ):
        node.run(["ip", *command.split()])
    return node


@contextmanager
def networkd(node: Node, etc: Path) -> Iterator[None]:
    """It runs on the node, with this /etc/systemd, and has configured eth0."""
    (etc / "systemd" / "network" / "90-all.network").write_text(EVERYTHING)
    node.run(["mount", "--bind", etc / "systemd", "/etc/systemd"])
    node.run(["mkdir", "-p", "/run/systemd/netif"])
    # As in a container: with a /sys that can be written it waits for udev.
    node.run(["mount", "-o", "remount,ro,bind", "/sys"])
    process = subprocess.Popen(
        [*node.enter, NETWORKD], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: process.poll() is not None or has_address(node, "eth0"))
        assert process.poll() is None
        yield
    finally:
        process.kill()
        process.wait()


def has_address(node: Node, link: str) -> bool:
    found = node.ip(f"address show dev {link}")
    return any(a["local"] == "198.51.100.1" for entry in found for a in entry["addr_info"])


def routes(node: Node) -> set[tuple[str, str]]:
    return {(r["dst"], r["dev"]) for r in node.ip("route show proto 113 table all")}


def test_networkd_configures_podwires_links_otherwise(linked: Node, etc: Path) -> None:
    with networkd(linked, etc):
        eventually(lambda: has_address(linked, "pw0123456789a"))


def test_networkd_leaves_podwires_links_and_routes(linked: Node, etc: Path, tmp_path: Path) -> None:
    put_host_files(Manifest(tmp_path), etc)
    with networkd(linked, etc):
        assert not has_address(linked, "pw0123456789a")
        (link,) = linked.ip("-4 address show dev pw0123456789a")
        assert [a["local"] for a in link["addr_info"]] == ["10.1.0.1"]
        assert routes(linked) == {("10.9.0.0/24", "eth0")}
    assert routes(linked) == {("10.9.0.0/24", "eth0")}


def test_only_managers_that_are_there_get_files(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    assert put_host_files(manifest, tmp_path) == []
    (tmp_path / "NetworkManager" / "conf.d").mkdir(parents=True)
    (line,) = put_host_files(manifest, tmp_path)
    assert line == str(tmp_path / "NetworkManager/conf.d/podwire.conf")
    assert Path(line).stat().st_mode & 0o777 == 0o644


def test_they_go_with_the_installation(etc: Path, tmp_path: Path) -> None:
    before = sorted(etc.rglob("*"))
    put_host_files(Manifest(tmp_path), etc)
    manifest = load_manifest(tmp_path)
    assert len(manifest.files) == 4
    remove_files(manifest)
    assert [p for p in sorted(etc.rglob("*")) if p.name != "networkd.conf.d"] == before


def install(etc: Path, tmp_path: Path, *words: str | Path, status: int = 0) -> set[str]:
    """The names of the host's files after `podwired install` with these options."""
    for name in ("podwire", "podwire-ipam"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o755)
    folders = ("--cni-bin", tmp_path / "bin", "--data-dir", tmp_path, "--programs", tmp_path)
    assert main([*map(str, ("install", *folders, *words))]) == status
    return {path.name for path in etc.rglob("*") if path.is_file()}


def test_they_come_with_the_executables(etc: Path, tmp_path: Path) -> None:
    every = {"05-podwire.network", "05-podwire.link", "podwire.conf"}
    assert install(etc, tmp_path, "--etc", etc) == every
    assert len(load_manifest(tmp_path).files) == 2 + 4


def test_a_host_that_gets_copies_has_its_managers_elsewhere(etc: Path, tmp_path: Path) -> None:
    assert install(etc, tmp_path, "--copy") == set()
    assert len(load_manifest(tmp_path).files) == 2
    assert install(etc, tmp_path, "--copy", "--etc", etc)


@pytest.mark.parametrize("umask", [0o077, 0o027, 0])
def test_others_can_read_them_whatever_the_umask(etc: Path, tmp_path: Path, umask: int) -> None:
    """systemd-networkd is no root: a folder that it cannot read it ignores."""
    (etc / "systemd" / "network").rmdir()
    before = os.umask(umask)
    try:
        install(etc, tmp_path, "--etc", etc)
    finally:
        os.umask(before)
    made = ("etc/systemd/network", "etc/systemd/networkd.conf.d", "bin")
    assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in made} == dict.fromkeys(
        made, 0o755
    )


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(
    etc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Unless it was asked for."""
    (etc / "systemd" / "network").rmdir()
    (etc / "systemd" / "network").write_text("a file")
    monkeypatch.setattr("daemon.commands.install.DEFAULT_ETC", etc)
    install(etc, tmp_path)
    assert "network managers of this host are not kept from" in capsys.readouterr().out
    install(etc, tmp_path, "--etc", etc, status=1)
    assert f"{etc}/systemd/network: it is no folder" in capsys.readouterr().err
