"""Run as a program on a node: `podwired uninstall` and `install`, killed before each change.

Forks need a process without threads, which a test's is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from daemon.__main__ import main
from daemon.commands import install, uninstall
from daemon.config import ORIGINAL_SYSCTLS, load
from daemon.installer import conflists, manifest
from daemon.routing import original_sysctls
from daemon.routing.backends.vxlan import DEVICE_ALIAS
from kernel.model import Sysctl
from kernel.netlink.codec import Message
from kernel.netlink.socket import Answer, Netlink
from kernel.sysctl import apply_sysctl, read_sysctl

CHANGES = {
    "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
}  # fmt: skip
NEVER = 1 << 30
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FORWARDING = "net/ipv4/ip_forward"
LINKS = f"""\
link add podwire-vxlan type vxlan id 1 dev eth0 dstport 8472 nolearning
link set podwire-vxlan alias "{DEVICE_ALIAS}" up
route add 10.244.2.0/24 dev podwire-vxlan proto 113
"""

LOADED = load, install, uninstall
"""Imported once, not by each process."""


class Place:
    """A node's folders and settings, with what was there before podwire."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.bin, self.net, self.data = (folder / name for name in ("bin", "net.d", "data"))
        self.source, self.config = source, folder / "podwired.yaml"
        for path in (self.bin, self.net):
            path.mkdir(parents=True)
        (self.bin / "bridge").write_text("the reference plugin")
        self.foreign, self.own = (
            self.net / n for n in ("10-other.conflist", "05-podwire.conflist")
        )
        self.foreign.write_text("{}")
        files = {
            "socket": folder / "run" / "s",
            "dataDir": self.data,
            "statusFile": folder / "status",
        }
        settings = {name: str(path) for name, path in files.items()}
        more = {"node": "n", "source": {"static": "/none"}, "conflist": {"path": str(self.own)}}
        self.config.write_text(json.dumps({**settings, **more}))

    def install(self) -> int:
        """The command."""
        words = ["--cni-bin", str(self.bin), "--data-dir", str(self.data), "--as", "bridge"]
        return main(["install", "--copy", "--programs", str(self.source), *words])

    def uninstall(self) -> int:
        """The command."""
        return main(["uninstall", "--purge", "--config", str(self.config)])

    def serve(self) -> None:
        """Leave what a daemon that ended leaves."""
        setting = Sysctl(FORWARDING, "1")
        original_sysctls.note_originals(self.data / ORIGINAL_SYSCTLS, [setting])
        apply_sysctl(setting)
        with manifest.changing_manifest(self.data) as found:
            conflists.set_aside_conflists(found, [self.foreign])
        self.own.write_text('{"name": "podwire", "podwired": "", "plugins": []}')
        (self.data / "journal.jsonl").touch()
        subprocess.run(["ip", "-batch", "-"], input=LINKS, text=True, check=True)
        subprocess.run(["nft", "add table inet podwire"], check=True)

    def state(self) -> object:
        """What uninstalling may not leave otherwise."""
        files = {p.name: p.read_bytes()[:40] for f in (self.bin, self.net) for p in f.iterdir()}
        shown = [["ip", "-o", "link"], ["ip", "route"], ["nft", "list", "tables"]]
        outputs = [subprocess.check_output(words, text=True) for words in shown]
        return files, self.data.exists(), read_sysctl(FORWARDING), *outputs


def killed_at(number: int, work: Callable[[], int]) -> bool:
    """Whether the work came to its end before its Nth change of a file or of the kernel."""
    pid = os.fork()
    if pid == 0:
        left = number

        def count() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            is_open = event == "open" and isinstance(arguments[2], int)
            if event in CHANGES or (is_open and int(str(arguments[2])) & WRITING):
                count()

        exchange = Netlink.exchange

        def counted(self: Netlink, messages: Sequence[Message]) -> list[Answer]:
            count()
            return exchange(self, messages)

        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            Netlink.exchange = counted  # type: ignore[method-assign]
            sys.addaudithook(hook)
            os._exit(work())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9), (number, status)
    return status == 0


def check(source: Path, command: str, step: int) -> int:
    """Kill the command before each Nth of its changes, and uninstall then; how often."""
    number, kills, ended = 0, 0, False
    while not ended:
        with tempfile.TemporaryDirectory(prefix="podwire-test-", dir="/dev/shm") as folder:
            place = Place(Path(folder), source)
            before = place.state()
            if command == "uninstall":
                assert killed_at(NEVER, place.install)
                place.serve()
            ended = killed_at(number, getattr(place, command))
            assert killed_at(NEVER, place.uninstall)
            assert place.state() == before, (command, number, place.state(), before)
        number, kills = number + step, kills + 1
    return kills


if __name__ == "__main__":
    print(check(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
