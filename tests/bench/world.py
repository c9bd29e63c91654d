"""The namespaces of a run: nodes that programs are started on, and pods."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from kernel.netns import CLONE_NEWNET, inside, open_namespace
from tests.pytest_netns import EchoServer, Namespace, Node, Underlay, reaper
from tests.pytest_netns.underlay import Family

T = TypeVar("T")

CALL_TIMEOUT = 120.0
"""Seconds after which work on a node counts as hung."""

FAMILIES: tuple[Family, ...] = (4, 6)
_CLONE_FS, _MS_BIND, _MNT_DETACH = 0x200, 4096, 2

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


class Pod(Namespace):
    """A pod's namespace, made and removed without starting a program."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, reaper.NAMED / name
        self._servers: list[EchoServer] = []
        self.path.touch(exist_ok=False)
        try:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._make).result()
            self.namespace = open_namespace(str(self.path))
        except BaseException:
            self.remove()
            raise

    def _make(self) -> None:
        _checked(_libc.unshare(CLONE_NEWNET), "unshare")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        _checked(_libc.mount(source, bytes(self.path), b"none", _MS_BIND, None), "bind namespace")

    def remove(self) -> None:
        """Let the namespace go; no process is in it. Repeatable."""
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.namespace.fd)
        _libc.umount2(bytes(self.path), _MNT_DETACH)
        self.path.unlink(missing_ok=True)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        with inside(self.namespace):
            return socket.socket(family, kind)

    def links(self) -> set[str]:
        """Names of the pod's links."""
        with inside(self.namespace):
            return {name for _, name in socket.if_nameindex()}


class Host:
    """A node, and a thread in its network and mount namespaces where work on it is done."""

    def __init__(self, label: str, node: Node, work_dir: Path) -> None:
        self.label, self.node = label, node
        self.work_dir = work_dir
        self.servers = {family: node.ns.echo("udp", node.address(family)) for family in FAMILIES}
        self.stderr = os.open(work_dir / "stderr", os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
        self._thread = ThreadPoolExecutor(1)
        self.call(self._enter)

    def _enter(self) -> None:
        _checked(_libc.unshare(_CLONE_FS), "unshare")  # a shared root forbids to change mounts
        paths = [word.partition("=")[2] for word in self.node.enter if "=" in word]
        with contextlib.ExitStack() as opened:
            for file in [opened.enter_context(open(path)) for path in paths]:
                _checked(_libc.setns(file.fileno(), 0), f"setns {file.name}")

    def call(self, work: Callable[[], T]) -> T:
        """Result of `work`, done on the node."""
        return self._thread.submit(work).result(CALL_TIMEOUT)

    def complaints(self) -> str:
        """The last words of the node's programs on standard error."""
        size = os.fstat(self.stderr).st_size
        return os.pread(self.stderr, 2000, max(0, size - 2000)).decode(errors="replace").strip()

    def close(self) -> None:
        """End the node and whatever runs on it."""
        self.node.remove()
        self._thread.shutdown()
        os.close(self.stderr)


def _remove_abandoned(build_dir: Path) -> None:
    """Remove the folders of runs that were killed."""
    for path in build_dir.glob("bench-*-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            shutil.rmtree(path, ignore_errors=True)


class World:
    """Everything that a run makes; leaving it removes all, and so does a reaper if we die."""

    def __init__(self, build_dir: Path) -> None:
        self._build_dir = build_dir.absolute()
        self._stack = contextlib.ExitStack()
        self._pods: dict[str, list[Pod]] = {}
        self._made = 0

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            self.prefix = f"pwb-{os.getpid()}-"
            reaping = reaper.start_reaper(self.prefix)
            stack.callback(reaping.communicate)
            self._build_dir.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self._build_dir)
            prefix = f"bench-{os.getpid()}-"
            self.work_dir = Path(tempfile.mkdtemp(prefix=prefix, dir=self._build_dir))
            stack.callback(shutil.rmtree, self.work_dir, ignore_errors=True)
            space = Namespace(f"{self.prefix}underlay")
            stack.callback(space.remove)
            self.underlay = Underlay(space)
            self.outside = {
                family: space.echo("udp", self.underlay.gateway(family)) for family in FAMILIES
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def host(self, label: str) -> Iterator[Host]:
        """A fresh node, with a fresh folder on the disk."""
        self._made += 1
        label = f"{self._made}-{label}"
        work_dir = self.work_dir / label
        work_dir.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, work_dir, ignore_errors=True)
            space = Namespace(f"{self.prefix}{label}")
            stack.callback(space.remove)
            node = Node(space, self.underlay, 1500)
            stack.callback(node.remove)
            host = Host(label, node, work_dir)
            stack.callback(host.close)
            yield host

    def pods(self, label: str, count: int) -> list[Pod]:
        """So many pods of a contender; the same ones again at the next call."""
        pods = self._pods.setdefault(label, [])
        while len(pods) < count:
            pod = Pod(f"{self.prefix}{label}-pod{len(pods)}")
            self._stack.callback(pod.remove)
            pods.append(pod)
        return pods[:count]
