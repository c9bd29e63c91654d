"""A named network namespace, and work done inside it."""

import ctypes
import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.pytest_netns import reaper, traffic

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT = 150.0
"""Seconds after which a command in a namespace counts as hung."""
PING_SECONDS = 10
"""Seconds that `ping` goes on asking."""

_libc = ctypes.CDLL(None, use_errno=True)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes = b"",
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; `check` makes an exit code other than 0 an AssertionError."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [str(arg) for arg in argv],
        input=data,
        env=None if env is None else dict(env),
        capture_output=True,
        check=False,
        timeout=COMMAND_TIMEOUT,
    )
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit code {done.returncode}: {err}{out}")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def call_in(path: Path | str, work: Callable[[], T]) -> T:
    """Result of `work`, called by a thread inside the network namespace of that path."""

    def enter_and_work() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {path}")
        finally:
            os.close(fd)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_work).result()


class Namespace:
    """A named network namespace with `lo` as the kernel made it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = reaper.NAMED / name
        self._servers: list[traffic.EchoServer] = []
        run(["ip", "netns", "add", name])

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def remove(self) -> None:
        """Stop what uses the namespace and remove it. Repeatable, also after `ip netns delete`."""
        while self._servers:
            self._servers.pop().close()
        reaper.remove_namespace(self.name)

    def vanish(self) -> None:
        """Remove the namespace and its pair, as when a pod ends without a DEL.

        By itself the kernel deletes a namespace's links some time after it, under load seconds.
        """
        self.ip_batch("link delete eth0")
        self.remove()

    def run(
        self, argv: Sequence[str | Path], *, stdin: str | bytes = b"", check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the namespace."""
        return run(["nsenter", f"--net={self.path}", "--", *argv], stdin=stdin, check=check)

    def call(self, work: Callable[[], T]) -> T:
        """Result of `work`, called by a thread inside the namespace.

        Sockets that it opens belong to the namespace for good.
        """

        return call_in(self.path, work)

    def ip(self, command: str) -> list[dict[str, Any]]:
        """What `ip -j COMMAND` says in the namespace: `ns.ip("-6 route show")`."""
        text = run(["ip", "-n", self.name, "-j", *command.split()]).stdout
        # Empty objects stand for what `ip` filtered out.
        return [entry for entry in json.loads(text or "[]") if entry]

    def ip_batch(self, commands: str) -> None:
        """Run `ip` commands, one a line, as one batch."""
        run(["ip", "-n", self.name, "-batch", "-"], stdin=commands)

    def link(self, ifname: str) -> dict[str, Any] | None:
        """The link as `ip -d -j link` shows it, or None."""
        return next((link for link in self.ip("-d link show") if link["ifname"] == ifname), None)

    def addresses(self, ifname: str) -> set[str]:
        """Global addresses of a link, with their prefix lengths."""
        return {
            f"{info['local']}/{info['prefixlen']}"
            for link in self.ip("address show scope global")
            if link["ifname"] == ifname
            for info in link.get("addr_info", ())
            if info  # an empty object stands for what the scope filtered out
        }

    def sysctl(self, key: str, value: str | None = None) -> str:
        """Read a sysctl below /proc/sys/net, after setting it if a value is given."""
        path = Path("/proc/sys/net", key)

        def access() -> str:
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

        return self.call(access)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket of the namespace, for any thread."""
        return self.call(lambda: socket.socket(family, kind))

    def echo(self, protocol: traffic.Protocol, address: str, port: int = 0) -> traffic.EchoServer:
        """Start a server in the namespace; it stops with the namespace."""
        server = traffic.EchoServer(self.socket, protocol, address, port)
        self._servers.append(server)
        return server

    def exchange(
        self, server: traffic.EchoServer, *, to: tuple[str, int] | None = None, bind: str = ""
    ) -> str:
        """Address that the server saw as the source of an exchange begun here.

        `to` is where to send, if not where the server listens (a mapped port, say); `bind` the
        source address. Raises OSError (TimeoutError among them) when there is no reply.
        """
        return traffic.exchange(self.socket, server.protocol, to or server.listens, bind)

    def reaches(
        self,
        server: traffic.EchoServer,
        *,
        to: tuple[str, int] | None = None,
        seconds: float = traffic.DOUBT_TIMEOUT,
    ) -> bool:
        """Whether an exchange with the server succeeds, soon; `exchange` where it must."""
        where = to or server.listens
        try:
            traffic.exchange(self.socket, server.protocol, where, seconds=seconds)
        except OSError:
            return False
        return True

    def ping(
        self,
        address: str,
        *,
        size: int | None = None,
        fragment: bool = True,
        seconds: int = PING_SECONDS,
    ) -> bool:
        """Whether an echo request is answered; `size` counts the whole IP packet, in bytes.

        One a second is sent for so many seconds: give 2 where there may well be no answer.
        """
        options = ["-n", "-c", "1", "-w", str(seconds)]
        if size is not None:
            options += ["-s", str(size - (48 if ":" in address else 28))]
        if not fragment:
            options += ["-M", "do"]
        return self.run(["ping", *options, address], check=False).returncode == 0

    def ping_once(self, address: str) -> bool:
        """Whether a single echo request is answered, however late."""
        argv = ["ping", "-n", "-c", "1", "-W", "30", address]
        return self.run(argv, check=False).returncode == 0
