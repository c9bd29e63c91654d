"""Reservations of host-local are released by their content alone."""

from __future__ import annotations

import fcntl
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipam import host_local_files
from ipam.errors import AddressTaken, StoreBusy
from ipam.host_local_files import adopt, export, read_reservations, release
from ipam.store import open_store
from ipam.transaction import Owner

CONTENTS = {
    "10.88.0.2": "aaaa\r\neth0",
    "10.88.0.3": "aaaa\r\nnet1",
    "10.88.0.4": "bbbb\r\neth0",
    "10.88.0.5": "aaaab\r\neth0",
    "10.88.0.6": "cccc",
    "fd00::2": "aaaa\r\neth0",
    "10.88.0.7": "aaaa\r\neth0\r\nmore",
    "notes.txt": "aaaa\r\neth0",
    "last_reserved_ip.0": "10.88.0.6",
    "lock": "",
}
MINE = Owner("pods", "aaaa", "eth0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pods").mkdir()
    for name, content in CONTENTS.items():
        (tmp_path / "pods" / name).write_bytes(content.encode())
    return tmp_path


def test_those_of_the_attachment_go(folder: Path) -> None:
    released = release(folder, "pods", lambda owner: owner == MINE)
    assert sorted(str(r.address) for r in released) == ["10.88.0.2", "fd00::2"]
    left = {file.name: file.read_bytes().decode() for file in (folder / "pods").iterdir()}
    assert left == {k: v for k, v in CONTENTS.items() if k not in ("10.88.0.2", "fd00::2")}
    assert release(folder, "pods", lambda owner: owner == MINE) == ()


def test_a_link_is_no_reservation(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("aaaa\r\neth0")
    (folder / "pods" / "10.88.0.9").symlink_to(target)
    assert len(release(folder, "pods", lambda owner: owner == MINE)) == 2
    assert target.exists()
    assert (folder / "pods" / "10.88.0.9").is_symlink()


@pytest.mark.parametrize("network", ["none", "pods/10.88.0.2"])
def test_a_network_without_folder_has_none(folder: Path, network: str) -> None:
    assert read_reservations(folder, network) == ()
    assert release(folder, network, lambda _owner: True) == ()


def test_nothing_is_released_while_host_local_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_local_files, "LOCK_TIMEOUT", 0.1)
    with open(folder / "pods" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreBusy):
            release(folder, "pods", lambda _owner: True)
    assert len(list((folder / "pods").iterdir())) == len(CONTENTS)


def test_exported_reservations_are_imported_as_they_were(tmp_path: Path) -> None:
    directory = tmp_path / "networks" / "pods"
    allocated = {ip_address("10.88.0.2"): MINE, ip_address("fd00::2"): MINE}
    allocated[ip_address("10.88.0.9")] = Owner("pods", "bbbb", "net1")
    with open_store(tmp_path / "store") as store:
        with store.transaction() as tx:
            for address, owner in allocated.items():
                tx.reserve(owner, address)
            tx.reserve(Owner("other", "cccc", "eth0"), ip_address("10.88.0.3"))
        assert export(store, directory) == (3, 0)
        assert export(store, directory) == (0, 3)
    assert {r.address: r.owner for r in read_reservations(directory.parent, "pods")} == allocated
    assert (directory / "10.88.0.9").read_bytes() == b"bbbb\r\nnet1"
    assert (directory / "10.88.0.9").stat().st_mode & 0o777 == 0o600


def test_nothing_is_exported_over_another_containers_reservation(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in (folder / "pods").iterdir()}
    with open_store(folder / "store") as store:
        with store.transaction() as tx:
            tx.reserve(MINE, ip_address("10.88.0.4"))
            tx.reserve(MINE, ip_address("10.88.0.200"))
        with pytest.raises(AddressTaken, match=r"1 addresses are reserved.*10\.88\.0\.4 is"):
            export(store, folder / "pods")
    assert {file.name: file.read_bytes() for file in (folder / "pods").iterdir()} == before


def test_what_is_reserved_is_taken_over_from_whoever_asks(folder: Path) -> None:
    asking, other = Owner("pods", "new", "eth0"), Owner("pods", "zzzz", "eth0")
    with open_store(folder / "store") as store:
        with store.transaction() as tx:
            tx.reserve(asking, ip_address("10.88.0.2"))
            tx.reserve(asking, ip_address("10.88.0.100"))
            tx.reserve(other, ip_address("10.88.0.4"))
            adopt(tx, folder / "pods", asking)
            adopt(tx, folder / "pods", asking)
        with store.read() as tx:
            held = {str(a.address): a.owner.container_id for a in tx.allocations("pods")}
    assert held == {
        "10.88.0.2": "aaaa",
        "10.88.0.3": "aaaa",
        "fd00::2": "aaaa",
        "10.88.0.6": "cccc",
        "10.88.0.4": "zzzz",
        "10.88.0.5": "aaaab",
        "10.88.0.100": "new",
    }
