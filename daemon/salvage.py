"""What can be read of a podwired.yaml that is wrong elsewhere: where its daemon is found, and whose
it is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from daemon.config.schema import ConflistSettings, MetricsSettings
from daemon.config.yaml import FILE_MAX
from daemon.model import parse_node_name

_NAME = "[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_PATH = r"/[^\s\"',{}]*"
_WORD = r"[^\s\"',{}]+"
_NO_METRICS = re.compile(r"(?<!\w)[\"']?metrics[\"']?[ \t]*:[ \t]*false\b")
_COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a daemon is found; network: the name of that in its CNI configuration.

    node: its name; metrics: where they are served, None for nowhere.
    """

    socket: Path
    data_dir: Path
    status_file: Path
    network: str
    node: str
    metrics: MetricsSettings | None


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
        _node_in(text),
        None if _NO_METRICS.search(text) else _metrics_in(text),
    )


def _node_in(text: str) -> str:
    try:
        return parse_node_name(_value_in(text, "node", _WORD))
    except ValueError:
        return os.uname().nodename


def _metrics_in(text: str) -> MetricsSettings:
    # It brings pydantic, which whoever found the file wrong has loaded.
    from daemon.config.values import parse_listen

    try:
        # Of all keys only the metrics' is called that.
        return MetricsSettings(*parse_listen(_value_in(text, "listen", _WORD)))
    except ValueError:
        return MetricsSettings()


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
