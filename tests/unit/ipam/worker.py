"""What the tests run in processes of their own: `python -m tests.unit.ipam.worker NAME ARGS`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ipam.allocator import allocate
from ipam.errors import IpamError, StoreDamaged, StoreError
from ipam.ranges import IPAddress
from ipam.recovery import recover
from ipam.store import Store, Transaction, open_store
from tests.unit.ipam.helpers import BOOT, NETWORK, conf, ip, owner

CONFIG = conf("10.0.0.0/16", "fd00::/64")
IN_KERNEL = tuple(ip(f"10.0.0.{n}") for n in range(2, 12))
"""Addresses that a refill finds in use."""

FILE_EVENTS = {"open", "os.rename", "os.link", "os.remove", "sqlite3.connect"}


def say(*words: object) -> None:
    print(*words, flush=True)


def wait_for_start() -> None:
    say("ready")
    sys.stdin.readline()


def refill(tx: Transaction) -> None:
    for number, address in enumerate(IN_KERNEL):
        tx.reserve(owner(f"kernel{number}"), address)


def add(store: Store, name: str) -> list[IPAddress]:
    with store.transaction() as tx:
        addresses = [assigned.address.ip for assigned in allocate(tx, CONFIG, owner(name))]
        tx.put_attachment(owner(name), " ".join(map(str, addresses)))
    return addresses


def delete(store: Store, name: str) -> None:
    with store.transaction() as tx:
        tx.release(owner(name))
        tx.delete_attachment(owner(name))


def add_many(data_dir: Path, name: str, count: str) -> None:
    """Add, each time with the store opened anew, as a runtime's calls do."""
    wait_for_start()
    for number in range(int(count)):
        with open_store(data_dir, boot_id=BOOT) as store:
            say(*add(store, f"{name}-{number}"))


def write_under_signals(data_dir: Path) -> None:
    """Write into a store that another process holds, as signals come thick and fast."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    with open_store(data_dir, boot_id=BOOT) as store:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        with store.transaction() as tx:
            tx.put_network("under signals", "{}")
    say("written")


def churn(data_dir: Path) -> None:
    """Add and delete forever, saying what was committed."""
    with open_store(data_dir, boot_id=BOOT) as store:
        number = 0
        while True:
            add(store, str(number))
            say("added", number)
            if number % 2:
                delete(store, str(number))
                say("deleted", number)
            number += 1


def kill_at_statement(data_dir: Path, number: str) -> None:
    """Add and delete; die at the n-th SQL statement."""
    left = int(number)

    def step(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_store(data_dir, boot_id=BOOT) as store:
        with store.read() as tx:
            tx.connection.set_trace_callback(step)
        add(store, "a")
        say("added")
        delete(store, "a")
        say("deleted")


def kill_at_file_event(work: Callable[[], object], number: str) -> None:
    """Do the work; die just before it touches the file system for the n-th time."""
    left = int(number)

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        if event in FILE_EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    work()
    say("done")


def kill_in_recovery(data_dir: Path, number: str) -> None:
    kill_at_file_event(lambda: recover(data_dir, refill, boot_id=BOOT), number)


def kill_in_creation(data_dir: Path, number: str) -> None:
    kill_at_file_event(lambda: open_store(data_dir, boot_id=BOOT, refill=refill).close(), number)


def add_recovering(data_dir: Path, name: str) -> None:
    """Add; if the database is damaged recover it, and try again."""
    wait_for_start()
    while True:
        try:
            with open_store(data_dir, boot_id=BOOT, refill=refill) as store:
                address = add(store, name)[0]
        except StoreDamaged:
            recover(data_dir, refill, boot_id=BOOT)
        else:
            say(address)
            return


def mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True)


def report(error: IpamError) -> None:
    say("error", error.code, isinstance(error, StoreError), str(error))


def fill_disk(folder: Path) -> None:
    """On a tiny tmpfs (in a mount namespace of our own): add until it is full, then enlarge it."""
    mount("-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder))
    with open_store(folder, boot_id=BOOT) as store:
        added = 0
        try:
            while True:
                add(store, str(added))
                added += 1
        except IpamError as error:
            report(error)
        with store.read() as tx:
            say("kept", added, tx.count(NETWORK), len(tx.attachments()))
        mount("-o", "remount,size=4m", str(folder))
        add(store, str(added))
        with store.read() as tx:
            say("kept", added + 1, tx.count(NETWORK), len(tx.attachments()))


def open_on_full_disk(folder: Path) -> None:
    """A new store where there is no space at all."""
    mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder))
    (folder / "ballast").write_bytes(b"x" * 8192)
    try:
        open_store(folder, boot_id=BOOT)
    except IpamError as error:
        report(error)
    say("left", *sorted(path.name for path in folder.iterdir()))
    (folder / "ballast").unlink()
    mount("-o", "remount,size=4m", str(folder))
    with open_store(folder, boot_id=BOOT) as store:
        say("kept", 1, len(add(store, "a")) // 2, 1)


def go_read_only(folder: Path) -> None:
    """The file system becomes read-only under an open store, and before one is opened."""
    mount("-t", "tmpfs", "tmpfs", str(folder))
    with open_store(folder, boot_id=BOOT) as store:
        add(store, "a")
    mount("-o", "remount,ro", str(folder))
    for path in (folder, folder / "new"):
        try:
            open_store(path, boot_id=BOOT)
        except IpamError as error:
            report(error)
    mount("-o", "remount,rw", str(folder))
    with open_store(folder, boot_id=BOOT) as store:
        add(store, "b")
        with store.read() as tx:
            say("kept", 2, tx.count(NETWORK) // 2, len(tx.attachments()))


WORK: dict[str, Callable[..., None]] = {
    work.__name__: work
    for work in (
        add_many, churn, kill_at_statement, kill_in_recovery, kill_in_creation,
        add_recovering, fill_disk, open_on_full_disk, go_read_only, write_under_signals,
    )
}  # fmt: skip


if __name__ == "__main__":
    WORK[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
