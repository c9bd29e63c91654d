"""A real firewalld of a node, on a system bus of the node's own."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.pytest_netns.node import Node
from tests.pytest_netns.tools import PROGRAMS

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
NAME, PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"


def call(node: Node, method: str, *texts: str, interface: str = f"{NAME}.zone") -> str:
    argv = ["busctl", "--system", "call", NAME, PATH, interface, method, *texts]
    return node.run(argv, check=False).stdout


@contextmanager
def program(node: Node, *argv: str) -> Iterator[None]:
    """A program of the node's while the block runs."""
    with subprocess.Popen([*node.enter, *argv], stderr=subprocess.DEVNULL) as started:
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                started.terminate()
            started.wait()


@contextmanager
def firewalld(node: Node, tmp_path: Path) -> Iterator[None]:
    """A system bus, and firewalld on it."""
    conf = tmp_path / "bus.conf"
    conf.write_text(BUS)
    node.run(["mkdir", "-p", "/run/dbus", "/run/firewalld"])
    daemon = [str(PROGRAMS / "firewalld"), "--nofork", "--nopid"]
    files = ["--system-config", "/run/firewalld", "--log-file", "/run/firewalld/log"]
    bus = ["dbus-daemon", f"--config-file={conf}", "--nofork", "--nopidfile"]
    with program(node, *bus), program(node, *daemon, *files):
        until = time.monotonic() + 60
        while not call(node, "getSources", "s", "trusted"):
            assert time.monotonic() < until, "firewalld does not start"
        yield
