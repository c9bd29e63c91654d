"""This node's own hash chain: by its next token others know that a change is this node's doing.

The secret stays in one file below the data folder. What is written there is always ahead of what is
published, so that no token is given out for two contents; one that is never published is no harm,
and what cannot be written is not published.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon.filefaults import explain
from daemon.files import replace_file
from daemon.log import Log
from daemon.machine_id import read_host
from daemon.model import Node
from daemon.sources.kubernetes.chain import (
    LENGTH,
    SEED_SIZE,
    parse_token,
    show_token,
    steps,
    token_of,
)

_FORMAT = 1
_FILE_MAX = 1 << 12
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class _Chain:
    """content: what the token of that index was given out for."""

    seed: bytes = field(repr=False)
    index: int
    content: str


class _Unusable(Exception):
    """A file that is no chain of this node's; the message says why, and quotes nothing of it."""


class Succession:
    """The file, read when it is first needed; for one thread. node: this node's name."""

    def __init__(self, path: Path, node: str, log: Log, *, length: int = LENGTH) -> None:
        self._path, self._node, self._log, self._length = path, node, log, length
        self._chain: _Chain | None = None
        self._text = ""
        self._is_over = False
        self._fault = ""
        self.is_as_left = True
        """Whether the token is the one that an earlier daemon gave out."""

    def token(self, content: str) -> str:
        """What goes with that content: the same token again, until it is another content.

        Empty where none can be given out: it could not be kept.
        """
        chain = self._load()
        return self._text if chain and chain.content == content else self.renew(content)

    def renew(self, content: str) -> str:
        """The next token, whatever the last one went with; empty as above."""
        old = self._load()
        if old and old.index + 1 < self._length:
            fresh = replace(old, index=old.index + 1, content=content)
        else:
            fresh = _Chain(secrets.token_bytes(SEED_SIZE), 0, content)
        self.is_as_left = False
        return self._use(fresh) if self._save(fresh) else ""

    def is_behind(self, token: object) -> bool:
        """Whether that is a token of this chain that was not given out as far as is known here.

        So it is where the file is of before that: others know what would come next.
        """
        mine, seen = parse_token(self._text) if self._load() else None, parse_token(token)
        return bool(mine and seen and steps(mine, seen, self._length))

    def abandon(self) -> None:
        """Let the next token be of another chain."""
        self._chain, self._is_over, self.is_as_left = None, True, False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _use(self, chain: _Chain) -> str:
        self._chain, self._is_over = chain, False
        self._text = show_token(token_of(chain.seed, chain.index, self._length))
        return self._text

    # -- the file

    def _load(self) -> _Chain | None:
        if self._chain is None and not self._is_over:
            try:
                self._use(self._parse(json.loads(_read(self._path))))
            except FileNotFoundError:
                return None
            except _Unusable as error:
                self._refuse(str(error))
            except OSError as error:
                self._refuse(f"cannot be read: {error.strerror}")
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                self._refuse(f"is damaged ({type(error).__name__})")
        return self._chain

    def _refuse(self, why: str) -> None:
        self._log.warning(f"{self._path} {why}: this node begins another succession")

    def _parse(self, root: Any) -> _Chain:
        if root["format"] != _FORMAT:
            raise _Unusable("has another format")
        if (root["node"], root["host"]) != (self._node, read_host()):
            raise _Unusable("is of another node, or of a machine of which this one is a copy")
        chain = _Chain(bytes.fromhex(root["seed"]), root["index"], str(root["content"]))
        if len(chain.seed) != SEED_SIZE or type(chain.index) is not int:
            raise ValueError
        if not 0 <= chain.index < self._length:
            raise ValueError
        return chain

    def _save(self, chain: _Chain) -> bool:
        """Whether the next daemon will know it; else that would give out this token again."""
        made = {
            "format": _FORMAT,
            "node": self._node,
            "host": read_host(),
            "seed": chain.seed.hex(),
            "index": chain.index,
            "content": chain.content,
        }
        fault = ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, f"{json.dumps(made)}\n".encode(), 0o600, durable=True)
        except OSError as error:
            fault = explain("this node's succession", self._path, error, "dataDir")
        if fault and fault != self._fault:
            self._log.warning(f"{fault}: this node publishes no succession")
        self._fault = fault
        return not fault


def content_of(node: Node, uid: str) -> str:
    """What this node publishes, in few characters. uid: of its Node."""
    facts = uid, [*map(str, node.addresses)], [*map(str, node.pod_cidrs)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _read(path: Path) -> bytes:
    """Raises _Unusable, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _check(os.fstat(fd))
        data = os.read(fd, _FILE_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > _FILE_MAX:
        raise _Unusable("is damaged (its size)")
    return data


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("is no regular file")
    if status.st_uid != os.geteuid():
        raise _Unusable("is another user's")
    if status.st_mode & _OTHERS:
        raise _Unusable("is a secret that others than its owner could read")
