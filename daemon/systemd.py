"""systemd's two small protocols: socket activation and readiness (sd_listen_fds, sd_notify)."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from cni_plugin.errors import INVALID_ENVIRONMENT, CniError

_FIRST = 3  # SD_LISTEN_FDS_START
_NONE = ("", "0")


def inherited_socket() -> socket.socket | None:
    """The listening socket that systemd passed to this very process, if it did.

    Raises CniError where what was passed is something else.
    """
    if not is_activated():
        return None
    count = os.environ["LISTEN_FDS"]
    if count != "1":
        raise _refusal(f"LISTEN_FDS is {count!r}: podwired takes one socket")
    found = _tell_descriptor(_FIRST)
    if found != _WANTED:
        raise _refusal(f"LISTEN_FDS=1, but descriptor {_FIRST} is {found}, not {_WANTED}")
    os.set_inheritable(_FIRST, False)
    # systemd's own descriptor stays, for the program may execute itself again.
    return socket.socket(fileno=os.dup(_FIRST))


def _refusal(msg: str) -> CniError:
    hint = "the socket unit needs one ListenStream= with a path, and Accept=no"
    return CniError(INVALID_ENVIRONMENT, msg, hint)


_WANTED = "a listening AF_UNIX SOCK_STREAM socket"
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFIFO: "a pipe",
}


def _tell_descriptor(fd: int) -> str:
    """What it is, in words."""
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
    except OSError:
        return "not open"
    if kind != stat.S_IFSOCK:
        return _KINDS.get(kind, "no socket")
    with socket.socket(fileno=os.dup(fd)) as made:
        listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        names = f"{_name(made.family)} {_name(made.type)}"
    return f"{'a listening' if listens else 'a non-listening'} {names} socket"


def _name(constant: object) -> str:
    return str(getattr(constant, "name", constant))


def is_activated() -> bool:
    """Whether systemd passed sockets to this very process (sd_listen_fds(3))."""
    env = os.environ
    return env.get("LISTEN_PID") == str(os.getpid()) and env.get("LISTEN_FDS", "") not in _NONE


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
