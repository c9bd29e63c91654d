"""How to reach the Kubernetes API: a kubeconfig file as kubectl reads it, or the service account.

What the file has and podwire cannot do is refused by its name. No message contains a secret.
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yaml

from daemon.config.schema import KubernetesSettings
from daemon.files import open_regular, read_regular
from daemon.sources.kubernetes.credentials import BearerAuth, Cluster, User, check_token, read_token
from daemon.sources.kubernetes.exec_plugin import ExecTokens, parse_exec
from daemon.sources.remote import SourceError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's service account."""
FILE_MAX = 4 << 20  # bytes
_MANY = {"cluster": "clusters", "context": "contexts", "user": "users"}
_UNSUPPORTED = {
    "user": ("as", "as-uid", "as-groups", "as-user-extra", "auth-provider"),
    "cluster": (),
    "context": (),
}
_PROXIES = ("http", "https")
_OTHERS = 0o077
Section = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the API.

    file: the kubeconfig; None = the service account. server_name: what the API server's certificate
    must be for, where it is not the URL's host. proxy: its URL.
    """

    file: Path | None
    cluster: Cluster
    user: User
    auth: httpx2.Auth | None
    server_name: str | None = None
    proxy: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no message may contain."""
        return tuple(filter(None, (self.user.token, self.user.password)))

    def exposed_files(self) -> Iterator[Path]:
        """Files with a secret of the user's that others than their owner may read."""
        for path in self._secret_files():
            try:
                mode = os.stat(path).st_mode
            except OSError:
                continue  # the request that needs it fails with a message
            if mode & _OTHERS:
                yield path

    def _secret_files(self) -> Iterator[Path]:
        user = self.user
        if self.file and (user.token or user.password or user.key_data):
            yield self.file
        yield from (Path(path) for path in (user.token_file, user.key_file) if path)


def read_access(settings: KubernetesSettings) -> Access:
    """How to reach the API. Raises SourceError naming what is missing; no secret is in it."""
    if settings.kubeconfig is not None:
        return _read_kubeconfig(settings.kubeconfig)
    return _read_account()


def _read_account() -> Access:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    if not host or not port:
        why = "KUBERNETES_SERVICE_HOST is not set, so this is no pod"
        raise SourceError(f"source.kubernetes needs the key kubeconfig: {why}")
    place, token = f"[{host}]" if ":" in host else host, ACCOUNT / "token"
    cluster = Cluster(f"https://{place}:{port}", ca_file=str(ACCOUNT / "ca.crt"))
    user = User(token=read_token(token), token_file=str(token))
    return Access(None, cluster, user, user.auth)


# -- the file


class _Fault(Exception):
    """What a kubeconfig has, or lacks, so that it cannot be used."""


def _read_kubeconfig(path: Path) -> Access:
    """How its current context reaches the API. Other entries may be as they like."""
    file = path.expanduser()
    try:
        root = _load(file)
        name = root.get("current-context")
        if not isinstance(name, str) or not name:
            raise _Fault("has no `current-context`")
        context = _find(root, "context", name, "which is its `current-context`")
        by = f"which its context {name!r} names"
        if not context.get("cluster"):
            raise _Fault(f"has no `cluster` in its context {name!r}")
        cluster = _find(root, "cluster", context["cluster"], by)
        user = _find(root, "user", context["user"], by) if context.get("user") else {}
        return _read_sections(cluster, user, file)
    except _Fault as error:
        raise SourceError(f"source.kubernetes: the kubeconfig {path} {error}") from error.__cause__


def _load(path: Path) -> Section:
    try:
        data = read_regular(path, FILE_MAX)
    except FileNotFoundError as error:
        raise _Fault("does not exist") from error
    except OSError as error:
        raise _Fault(f"cannot be read: {error.strerror}") from error
    try:
        root = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # What a parser says of the file may quote it.
        raise _Fault(f"is no configuration ({type(error).__name__})") from error
    if not isinstance(root, dict):
        raise _Fault("is empty" if root is None else "is no mapping")
    return root


def _find(root: Section, kind: str, name: object, why: str) -> Section:
    """An entry's content, without keys that have no value."""
    entries = root.get(_MANY[kind]) or ()
    found = [e for e in entries if isinstance(e, dict) and e.get("name") == name]
    if not found:
        raise _Fault(f"has no {kind} {name!r}, {why}")
    content = found[0].get(kind)
    if not isinstance(content, dict):
        raise _Fault(f"has no mapping `{kind}` in its {kind} {name!r}")
    given = {key: value for key, value in content.items() if value not in (None, "", [], {})}
    for key in _UNSUPPORTED[kind]:
        if key in given:
            raise _Fault(f"has `{key}` in its {kind} {name!r}, which podwire does not support")
    return given


def _read_sections(cluster: Section, user: Section, file: Path) -> Access:
    _check_cluster(cluster)
    plugin = user.pop("exec", None)
    for section, key in (
        (cluster, "certificate-authority"),
        (user, "client-certificate"),
        (user, "client-key"),
        (user, "tokenFile"),
    ):
        if f"{key}-data" in section:
            section.pop(key, None)  # client-go: the data counts
        elif isinstance(section.get(key), str):
            section[key] = str(file.parent / section[key])
    place = Cluster(
        server=_text(cluster, "server"),
        ca_file=_text(cluster, "certificate-authority"),
        ca_data=_text(cluster, "certificate-authority-data"),
        insecure=cluster.get("insecure-skip-tls-verify", False),
    )
    who = User(
        token=check_token(_text(user, "token")),
        token_file=_text(user, "tokenFile"),
        username=_text(user, "username"),
        password=_text(user, "password"),
        certificate_file=_text(user, "client-certificate"),
        certificate_data=_text(user, "client-certificate-data"),
        key_file=_text(user, "client-key"),
        key_data=_text(user, "client-key-data"),
    )
    auth = who.auth
    if plugin is not None and auth is None:
        try:
            auth = BearerAuth(ExecTokens(parse_exec(plugin, file.parent), cluster).get)
        except ValueError as error:
            raise _Fault(f"has an `exec` that {error}") from error
    if who.token_file:
        try:
            open_regular(Path(who.token_file)).close()
        except OSError as error:
            why = f"{who.token_file}, which cannot be read: {error.strerror}"
            raise _Fault(f"has the `tokenFile` {why}") from error
    server_name, proxy = _text(cluster, "tls-server-name"), _text(cluster, "proxy-url")
    return Access(file, place, who, auth, server_name or None, proxy or None)


def _text(section: Section, key: str) -> str:
    """What a key has; "" where it is left out."""
    found = section.get(key, "")
    if not isinstance(found, str):
        raise _Fault(f"has a `{key}` that is no text")
    return found


def _check_cluster(cluster: Section) -> None:
    if not cluster.get("server"):
        raise _Fault("has no `server` in its cluster")
    if cluster.get("insecure-skip-tls-verify") not in (None, True, False):
        raise _Fault("has an `insecure-skip-tls-verify` that is neither true nor false")
    if cluster.get("insecure-skip-tls-verify") and (
        cluster.get("certificate-authority") or cluster.get("certificate-authority-data")
    ):
        raise _Fault("has both `insecure-skip-tls-verify` and a certificate authority")
    proxy = cluster.get("proxy-url")
    if proxy is not None and urlsplit(str(proxy)).scheme not in _PROXIES:
        # A URL may contain a password.
        raise _Fault("has a `proxy-url` of another kind than http: and https:")
