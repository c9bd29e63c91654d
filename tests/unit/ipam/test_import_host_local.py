"""Taking over from the reference plugin, whose own executable writes the folder."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from ipam import host_local_files as host_local
from ipam.allocator import allocate
from ipam.errors import AddressTaken, IpamError, StoreBusy
from ipam.host_local_files import Skipped, import_directory, read_directory
from ipam.store import Owner, Store
from tests.unit.ipam.helpers import NETWORK, HandClock, conf, ip, owner

HOST_LOCAL = "/usr/lib/cni/host-local"
SETS = ("10.5.0.0/24", "fd05::/64")


def reference_add(networks: Path, container_id: str, ifname: str = "eth0") -> list[str]:
    """What the reference plugin gave; it needs no network namespace."""
    ipam = {
        "type": "host-local", "dataDir": str(networks), "ranges": [[{"subnet": s}] for s in SETS],
    }  # fmt: skip
    done = subprocess.run(
        [HOST_LOCAL],
        input=json.dumps({"cniVersion": "1.0.0", "name": NETWORK, "ipam": ipam}),
        env={"CNI_COMMAND": "ADD", "CNI_CONTAINERID": container_id, "CNI_IFNAME": ifname,
             "CNI_NETNS": "/nowhere", "CNI_PATH": "/nowhere"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [entry["address"].split("/")[0] for entry in json.loads(done.stdout)["ips"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reference plugin's folder, with two pods in it."""
    for container_id, ifname in (("first", "eth0"), ("second", "net1")):
        reference_add(tmp_path / "networks", container_id, ifname)
    return tmp_path / "networks" / NETWORK


def test_pods_of_the_reference_plugin_keep_their_addresses(folder: Path, store: Store) -> None:
    imported = import_directory(store, folder)
    assert (imported.network, imported.known, imported.skipped) == (NETWORK, (), ())
    assert all("no interface" not in r.note for r in imported.taken)
    with store.transaction() as tx:
        assert tx.addresses(Owner(NETWORK, "first", "eth0")) == (ip("10.5.0.2"), ip("fd05::2"))
        assert tx.addresses(Owner(NETWORK, "second", "net1")) == (ip("10.5.0.3"), ip("fd05::3"))
        got = [str(a.address.ip) for a in allocate(tx, conf(*SETS), owner("new"))]
    assert got == ["10.5.0.4", "fd05::4"]


def test_an_import_can_be_repeated(folder: Path, store: Store) -> None:
    first = import_directory(store, folder)
    later = reference_add(folder.parent, "third")
    again = import_directory(store, folder)
    assert again.known == tuple(sorted(first.taken, key=lambda r: r.address.packed))
    assert {str(r.address) for r in again.taken} == set(later)


def test_another_name(folder: Path, store: Store) -> None:
    assert import_directory(store, folder, "renamed").network == "renamed"
    with store.read() as tx:
        assert (tx.count("renamed"), tx.count(NETWORK)) == (4, 0)


def test_conflicts_are_named_and_change_nothing(folder: Path, store: Store) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(7), ip("10.5.0.3"))
        tx.reserve(owner(8), ip("fd05::2"))
    with pytest.raises(AddressTaken) as caught:
        import_directory(store, folder)
    text = str(caught.value)
    for part in ("2 addresses", "10.5.0.3", "container7", "second", "fd05::2", "container8"):
        assert part in text
    with store.read() as tx:
        assert tx.count(NETWORK) == 2


ODD_FILES = {
    "10.5.0.20": (b"", "empty: no container ID"),
    "10.5.0.21": (b"\r\n", "empty: no container ID"),
    "10.5.0.22": (b"../etc\r\neth0", "'../etc' is not a container ID"),
    "10.5.0.23": (b"abc\r\na/b", "['a/b'] is not an interface name"),
    "10.5.0.24": (b"abc\r\neth0\r\nmore", "['eth0', 'more'] is not an interface name"),
    "10.5.0.25": (b"\xff\xfe", "'utf-8' codec can't decode"),
    "10.5.0.26": (b"x" * 5000, "larger than 4096 bytes"),
    "notes.txt": (b"hello", "the name is not an address"),
}


def test_odd_files_are_reported_and_skipped(folder: Path, store: Store) -> None:
    for name, (content, _) in ODD_FILES.items():
        (folder / name).write_bytes(content)
    (folder / "10.5.0.30").symlink_to("/etc/passwd")
    (folder / "10.5.0.31").mkdir()
    imported = import_directory(store, folder)
    assert len(imported.taken) == 4
    reasons = {skipped.path.name: skipped.reason for skipped in imported.skipped}
    expected = {name: reason for name, (_, reason) in ODD_FILES.items()}
    expected |= dict.fromkeys(["10.5.0.30", "10.5.0.31"], "not a regular file")
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason)


@pytest.mark.parametrize(
    ("names", "address"),
    [(("10.5.0.9", "::ffff:10.5.0.9"), "10.5.0.9"), (("fd05:0::9", "fd05__9"), "fd05::9")],
)
def test_of_two_files_for_one_address_the_second_is_named(
    tmp_path: Path, names: tuple[str, str], address: str
) -> None:
    for name, content in zip(names, ("abc\r\neth0", "xyz\r\nnet1"), strict=True):
        (tmp_path / name).write_text(content)
    (taken,), skipped = read_directory(tmp_path, NETWORK)
    assert (str(taken.address), taken.owner.container_id) == (address, "abc")
    reason = f"another file gives {address} to container abc interface eth0"
    assert skipped == (Skipped(tmp_path / names[1], reason),)


def test_files_of_old_versions_name_no_interface(tmp_path: Path) -> None:
    (tmp_path / "10.5.0.2").write_text("abc")
    (tmp_path / "fd05__9").write_text("abc\r\nnet2")
    found, skipped = read_directory(tmp_path, NETWORK)
    assert skipped == ()
    assert [(str(r.address), r.owner.ifname, r.note) for r in found] == [
        ("10.5.0.2", "eth0", "no interface in the file, taken as eth0"),
        ("fd05::9", "net2", ""),
    ]


def test_files_of_an_earlier_boot_are_noted(folder: Path, store: Store, clock: HandClock) -> None:
    booted_at = clock.wall - clock.uptime
    for path in folder.iterdir():
        os.utime(path, (clock.wall, clock.wall))
    os.utime(folder / "10.5.0.2", (booted_at - 9, booted_at - 9))
    notes = {str(r.address): r.note for r in import_directory(store, folder).taken}
    assert notes.pop("10.5.0.2") == "written before this boot, probably leaked"
    assert set(notes.values()) == {""}


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_cannot_be_read(tmp_path: Path, store: Store, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IpamError) as caught:
        import_directory(store, tmp_path / name)
    assert caught.value.code == 5
    assert str(tmp_path / name) in str(caught.value)


def test_host_local_is_locked_out_meanwhile(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import waits for the lock that the reference plugin takes."""
    monkeypatch.setattr(host_local, "LOCK_TIMEOUT", 0.05)
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreBusy):
            import_directory(store, folder)
    assert len(import_directory(store, folder).taken) == 4


def test_skipped_files_name_their_path(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "lock").write_text("")
    (tmp_path / "last_reserved_ip.0").write_text("10.5.0.2")
    assert read_directory(tmp_path, NETWORK) == (
        (),
        (Skipped(tmp_path / "x", "the name is not an address"),),
    )
