"""Run as a program: work on files that is killed at its Nth line, for every N.

Forks need a process without threads, which a test's is not.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

from daemon.installer import conflists, manifest, programs
from daemon.installer.manifest import Manifest, changing_manifest, load_manifest

WATCHED = {module.__file__ for module in (conflists, manifest, programs)}


class Node:
    """Folders of a node, with what was there before podwire."""

    def __init__(self, folder: Path) -> None:
        self.data, self.bin, self.source = (folder / n for n in ("data", "bin", "source"))
        self.net = folder / "net.d"
        for path in (self.bin, self.source, self.net):
            path.mkdir()
        (self.source / "podwire").write_text("version 1")
        (self.bin / "bridge").write_text("reference")
        (self.bin / "ptp").symlink_to("elsewhere")
        (self.net / "10-flannel.conflist").write_text("flannel")

    def install(self, copy: bool = True) -> None:
        sources = [(name, self.source / "podwire") for name in ("podwire", "bridge")]
        with changing_manifest(self.data) as found:
            programs.put_programs(found, self.bin, sources, copy=copy)
            conflists.set_aside_conflists(found, [self.net / "10-flannel.conflist"])

    def uninstall(self) -> None:
        with changing_manifest(self.data) as found:
            conflists.put_back_conflists(found)
            programs.remove_files(found)

    def upgrade(self) -> None:
        (self.source / "podwire").write_text("version 2")
        self.install()

    def state(self) -> dict[str, str]:
        found = sorted((*self.bin.iterdir(), *self.net.iterdir()))
        return {p.name: os.readlink(p) if p.is_symlink() else p.read_text() for p in found}

    def manifest(self) -> Manifest:
        return load_manifest(self.data)


def killed_at(line: int, work: Callable[[], None]) -> bool:
    """Whether the work came to its end before its Nth line."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _argument: object) -> object:
            nonlocal left
            if frame.f_code.co_filename not in WATCHED:
                return None
            left -= event == "line"
            if left < 0:
                os._exit(9)
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def check(prepare: Callable[[Node], None], work: Callable[[Node], None]) -> int:
    """Kill the work at each of its lines, and then finish it, or take all of it off; the lines."""
    line, ended = 0, False
    while not ended:
        for follow in (work, Node.uninstall):
            with tempfile.TemporaryDirectory(prefix="podwire-test-", dir="/dev/shm") as folder:
                node = Node(Path(folder))
                before = node.state()
                prepare(node)
                ended = killed_at(line, partial(work, node))
                assert os.path.lexists(node.bin / "bridge"), line
                follow(node)
                found = node.state()
                assert follow is work or (found, node.manifest().is_empty) == (before, True), line
                work(node)
                assert found == node.state() or follow is not work, (line, found, node.state())
        line += 1
    return line


if __name__ == "__main__":
    checks: dict[str, tuple[Callable[[Node], None], Callable[[Node], None]]] = {
        "install": (lambda _node: None, Node.install),
        "upgrade": (Node.install, Node.upgrade),
        "uninstall": (Node.install, Node.uninstall),
    }
    print(check(*checks[sys.argv[1]]))
