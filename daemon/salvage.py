"""What can be read of a podwired.yaml that is wrong elsewhere: where its daemon is found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from daemon.settings import ConflistSettings
from daemon.yamlfile import FILE_MAX

_NAME = "[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_PATH = r"/[^\s\"',{}]*"
_COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a daemon is found; network: the name of that in its CNI configuration."""

    socket: Path
    data_dir: Path
    status_file: Path
    network: str


def salvage(config: Path, socket: Path, data_dir: Path) -> Places:
    """The places that a configuration names, as far as it can be read. Never raises.

    socket, data_dir: what counts where it names none.
    """
    text = _COMMENT.sub("", _read(config))
    socket = _path_in(text, "socket", socket)
    return Places(
        socket,
        _path_in(text, "dataDir", data_dir),
        _path_in(text, "statusFile", socket.parent / "status.json"),
        # Of all keys only the conflist's is called that.
        _value_in(text, "name", _NAME) or ConflistSettings().name,
    )


def _read(config: Path) -> str:
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            return file.read(FILE_MAX)
    except OSError:
        return ""


def _path_in(text: str, key: str, usual: Path) -> Path:
    path = Path(_value_in(text, key, _PATH))
    return path if path.name not in ("", "..") else usual


def _value_in(text: str, key: str, pattern: str) -> str:
    found = re.search(rf"(?<!\w)[\"']?{key}[\"']?[ \t]*:[ \t]*[\"']?({pattern})", text)
    return found[1] if found and found[1].isprintable() else ""
