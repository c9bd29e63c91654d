"""systemd's two small protocols: socket activation and readiness (sd_listen_fds, sd_notify)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_FIRST = 3  # SD_LISTEN_FDS_START


def inherited_socket() -> socket.socket | None:
    """The listening socket that systemd passed to this very process, if it did."""
    if not is_activated():
        return None
    os.set_inheritable(_FIRST, False)
    # systemd's own descriptor stays, for the program may execute itself again.
    return socket.socket(fileno=os.dup(_FIRST))


def is_activated() -> bool:
    """Whether systemd passed a listening socket to this very process."""
    env = os.environ
    return env.get("LISTEN_PID") == str(os.getpid()) and env.get("LISTEN_FDS") == "1"


def keep_inherited_socket() -> None:
    """Let the program that this process executes next have systemd's socket."""
    if is_activated():
        os.set_inheritable(_FIRST, True)


def notify(state: str) -> None:
    """Tell systemd a state like READY=1; nobody listening is no error."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(state.encode(), address)
