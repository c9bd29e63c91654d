"""Removal of named network namespaces, and the process that does it when the tests cannot.

Started as a program it waits for the end of its standard input, which the test process holds
open, and then removes every namespace whose name starts with its argument. In a session of its
own: Ctrl-C at the terminal does not reach it.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMED = Path("/run/netns")


def processes_in(name: str) -> Iterator[int]:
    """Processes whose network namespace is `name`, this one excepted."""
    wanted = (NAMED / name).stat()
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if entry.isdecimal() and int(entry) != os.getpid():
                found = os.stat(f"/proc/{entry}/ns/net")
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    yield int(entry)


def remove_namespace(name: str) -> None:
    """Kill what runs in the namespace, then remove its name. Repeatable."""
    if not (NAMED / name).exists():
        return
    for pid in processes_in(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def named(prefix: str) -> list[str]:
    """Names of the namespaces that start with `prefix`."""
    return sorted(path.name for path in NAMED.glob(f"{prefix}*"))


def start_reaper(prefix: str) -> "subprocess.Popen[bytes]":
    """Start the process that removes `prefix`* once this process is gone."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(prefix: str) -> None:
    sys.stdin.buffer.read()
    for name in named(prefix):
        remove_namespace(name)


if __name__ == "__main__":
    main(sys.argv[1])
