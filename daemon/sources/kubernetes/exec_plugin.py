"""Tokens that a program gives out: `exec` of a kubeconfig.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.sources.remote import SourceError

_GROUP = "client.authentication.k8s.io"
_VERSIONS = (f"{_GROUP}/v1", f"{_GROUP}/v1beta1")
_SECONDS = 60.0
_SHOWN = 200
_CLUSTER_KEYS = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A program that gives out tokens. with_cluster: whether it is told of the cluster."""

    version: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    with_cluster: bool


def parse_exec(section: Any, folder: Path) -> Plugin:
    """The `exec` of a user. Raises ValueError saying what is wrong with it.

    folder: of the kubeconfig, from which a command with a / is relative.
    """
    if not isinstance(section, dict):
        raise ValueError("is no mapping")
    version, command = section.get("apiVersion"), section.get("command")
    if version not in _VERSIONS:
        raise ValueError(f"has apiVersion {version!r}: must be {' or '.join(_VERSIONS)}")
    if section.get("interactiveMode") == "Always":
        raise ValueError("has interactiveMode Always: the daemon has no terminal")
    if not isinstance(command, str) or not command:
        raise ValueError("has no `command`")
    path = str(folder / command) if "/" in command else command
    if shutil.which(path) is None:
        hint = section.get("installHint")
        raise ValueError(f"has a command that is not found: {path}" + (f"; {hint}" if hint else ""))
    try:
        args = tuple(map(str, section.get("args") or ()))
        env = {str(e["name"]): str(e["value"]) for e in section.get("env") or ()}
    except (TypeError, KeyError) as error:
        raise ValueError("has `args` or `env` that are no list") from error
    return Plugin(version, (path, *args), env, section.get("provideClusterInfo") is True)


class ExecTokens:
    """Asks the plugin for a token when there is none, when it has expired, and after a 401."""

    def __init__(self, plugin: Plugin, cluster: Mapping[str, Any]) -> None:
        self._plugin, self._cluster = plugin, cluster
        self._mutex = threading.Lock()
        self._token, self._expires = "", 0.0

    def get(self, refused: str) -> str:
        """The token; refused: one that is not valid any more. Raises SourceError."""
        with self._mutex:
            if self._token in ("", refused) or time.time() >= self._expires:
                self._token, self._expires = self._run()
            return self._token

    def _run(self) -> tuple[str, float]:
        """A token, and until when it is valid, by the wall clock."""
        plugin = self._plugin
        spec: dict[str, Any] = {"interactive": False}
        if plugin.with_cluster:
            spec["cluster"] = {k: self._cluster[k] for k in _CLUSTER_KEYS if k in self._cluster}
        info = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec}
        try:
            done = subprocess.run(
                plugin.argv,
                env={**os.environ, **plugin.env, "KUBERNETES_EXEC_INFO": json.dumps(info)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._fault(str(error)) from None
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip()[-_SHOWN:]
            raise self._fault(f"ends with {done.returncode}: {why}")
        return self._read(done.stdout)

    def _read(self, output: bytes) -> tuple[str, float]:
        try:
            root = json.loads(output)
            status = root["status"]
            if root["apiVersion"] != self._plugin.version:
                raise self._fault(f"answers with another version than {self._plugin.version}")
            token, expires = status.get("token"), status.get("expirationTimestamp")
            end = datetime.fromisoformat(expires).timestamp() if expires else float("inf")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._fault("gives no ExecCredential") from None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            why = "a client certificate" if status.get("clientCertificateData") else "no token"
            raise self._fault(f"gives {why}: podwire needs a token")
        return token, end

    def _fault(self, why: str) -> SourceError:
        return SourceError(f"source.kubernetes: the exec plugin {self._plugin.argv[0]} {why}")
