"""How to reach the Kubernetes API: a kubeconfig file, or the pod's service account.

lightkube reads both. Messages name what is missing, and never contain a secret.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from daemon.config.schema import KubernetesSettings
from daemon.sources.remote import SourceError

FILE_MAX = 4 << 20  # bytes
_MANY = {"clusters": "cluster", "contexts": "context", "users": "user"}
_OTHERS = 0o077
# msgspec, by which lightkube parses, crashes the process (0.22, SIGSEGV) where two threads are the
# first to use a type.
_READING = threading.Lock()


def read_config(settings: KubernetesSettings) -> SingleConfig:
    """How to reach the API. Raises SourceError naming what is missing; no secret is in it."""
    with _READING:
        return _read(settings)


def _read(settings: KubernetesSettings) -> SingleConfig:
    if settings.kubeconfig is not None:
        return _read_kubeconfig(settings.kubeconfig)
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        why = "KUBERNETES_SERVICE_HOST is not set, so this is no pod"
        raise SourceError(f"source.kubernetes needs the key kubeconfig: {why}")
    try:
        config = KubeConfig.from_service_account().get()
        assert config is not None  # noqa: S101 - it has one context
        return config
    except ConfigError as error:
        raise SourceError(f"source.kubernetes: {error}") from error
    except Exception as error:
        what = "the service account is no configuration"
        raise SourceError(f"source.kubernetes: {what} ({type(error).__name__})") from error


def _read_kubeconfig(path: Path) -> SingleConfig:
    """How its current context reaches the API. Raises SourceError naming what is missing."""
    found = path.expanduser()
    root = _load(found)
    missing = _missing(root)
    if missing:
        raise _refusal(path, missing)
    try:
        config = KubeConfig.from_dict(root, fname=found).get()
        assert config is not None  # noqa: S101 - it has a current context
        return config
    except Exception as error:
        # What a parser says of the file may quote it.
        raise _unreadable(path, error) from error


def _load(path: Path) -> Any:
    try:
        # Not to wait for the other end of a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _refusal(path, "is no regular file")
            data = file.read(FILE_MAX + 1)
    except FileNotFoundError as error:
        raise _refusal(path, "does not exist") from error
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from error
    if len(data) > FILE_MAX:
        raise _refusal(path, f"is larger than {FILE_MAX >> 20} MiB")
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _refusal(path: Path, why: str) -> SourceError:
    return SourceError(f"source.kubernetes: the kubeconfig {path} {why}")


def _unreadable(path: Path, error: Exception) -> SourceError:
    return _refusal(path, f"is no configuration ({type(error).__name__})")


def _missing(root: Any) -> str:
    """What a kubeconfig must have and this one lacks; empty where it lacks nothing."""
    if root is None:
        return "is empty"
    if not isinstance(root, dict):
        return "is no mapping"
    for key, one in _MANY.items():
        entries = root.get(key, [] if key == "users" else None)
        if not isinstance(entries, list) or not all(_is_entry(entry, one) for entry in entries):
            return f"has no list `{key}` of entries with `name` and `{one}`"
    name = root.get("current-context")
    if not isinstance(name, str) or not name:
        return "has no `current-context`"
    return _missing_of(root, name)


def _is_entry(entry: Any, one: str) -> bool:
    named = isinstance(entry, dict) and isinstance(entry.get("name"), str)
    return named and isinstance(entry.get(one), dict)


def _missing_of(root: dict[str, Any], name: str) -> str:
    context = _find(root, "contexts", name)
    if context is None:
        return f"has no context {name!r}, which is its `current-context`"
    if not isinstance(context.get("cluster"), str):
        return f"has no `cluster` in its context {name!r}"
    for one, many in (("cluster", "clusters"), ("user", "users")):
        wanted = context.get(one)
        if wanted is not None and _find(root, many, wanted) is None:
            return f"has no {one} {wanted!r}, which its context {name!r} names"
    cluster = _find(root, "clusters", context["cluster"]) or {}
    return "" if cluster.get("server") else f"has no `server` in its cluster {context['cluster']!r}"


def _find(root: dict[str, Any], many: str, name: object) -> dict[str, Any] | None:
    found = (entry for entry in root.get(many, []) if entry["name"] == name)
    entry = next(found, None)
    content: dict[str, Any] | None = entry[_MANY[many]] if entry else None
    return content


def exposed_files(config: SingleConfig) -> Iterator[Path]:
    """Files with a secret of the user's that others than their owner may read."""
    for path in _secret_files(config):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # the request that needs it fails with a message
        if mode & _OTHERS:
            yield path


def _secret_files(config: SingleConfig) -> Iterator[Path]:
    user: User | None = config.user
    if user is None:
        return
    if config.fname and (user.token or user.password or user.client_key_data):
        yield config.fname
    if user.token_file:
        yield Path(user.token_file)
    if user.client_key:
        yield Path(config.abs_file(user.client_key))
