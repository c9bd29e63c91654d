"""Who this node is to the Kubernetes API, and how it gets there.

lightkube reads the kubeconfig or the pod's service account, verifies and authenticates; a token
file that was rotated is read anew after a 401.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING

from daemon.config.schema import KubernetesSettings
from daemon.sources.kubernetes.kubeconfig import read_kubeconfig
from daemon.sources.remote import SourceError

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.config.models import User

_LOGGERS = ("httpx2", "httpcore2", "lightkube", "hpack", "h2")
# A peer that is gone without a word is noticed in about two minutes, whatever the API sends.
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),  # milliseconds
]
# msgspec, by which lightkube parses, crashes the process (0.22, SIGSEGV) where two threads are the
# first to use a type.
_READING = threading.Lock()


def require_library() -> None:
    """Whether lightkube can be used. Raises SourceError saying what to do."""
    try:
        import httpx2  # noqa: F401
        import lightkube.config.kubeconfig  # noqa: F401
    except ImportError as error:
        why = f"needs {error.name}, which is not installed: pip install 'podwire[kubernetes]'"
        raise SourceError(f"source.kubernetes {why}") from error


def read_config(settings: KubernetesSettings) -> SingleConfig:
    """How to reach the API. Raises SourceError naming what is missing; no secret is in it."""
    require_library()
    with _READING:
        return _read(settings)


def _read(settings: KubernetesSettings) -> SingleConfig:
    if settings.kubeconfig is not None:
        return read_kubeconfig(settings.kubeconfig)
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        why = "KUBERNETES_SERVICE_HOST is not set, so this is no pod"
        raise SourceError(f"source.kubernetes needs the key kubeconfig: {why}")
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        config = KubeConfig.from_service_account().get()
        assert config is not None  # noqa: S101 - it has one context
        return config
    except ConfigError as error:
        raise SourceError(f"source.kubernetes: {error}") from error
    except Exception as error:
        what = "the service account is no configuration"
        raise SourceError(f"source.kubernetes: {what} ({type(error).__name__})") from error


def _strip_token(user: User) -> None:
    """Tokens end where their text does, as for client-go. Raises SourceError."""
    if user.token is None:
        return
    user.token = user.token.strip()
    if not (user.token.isascii() and user.token.isprintable()):
        raise SourceError("source.kubernetes: the user's token is no single line of ASCII")


def open_session(config: SingleConfig, timeout: httpx2.Timeout) -> httpx2.Client:
    import httpx2
    from lightkube.config.client_adapter import user_auth, verify_cluster
    from lightkube.config.models import User as NoUser
    from lightkube.core.exceptions import ConfigError

    for name in _LOGGERS:  # they print requests and headers, tokens included
        logging.getLogger(name).setLevel(logging.CRITICAL)
    user = config.user or NoUser()
    _strip_token(user)
    try:
        context = verify_cluster(config.cluster, user, config.abs_file, trust_env=False)
        auth = user_auth(user)
    except (ConfigError, OSError, ValueError) as error:
        raise SourceError(f"source.kubernetes: its certificates or user: {error}") from error
    limits = httpx2.Limits(max_connections=8, max_keepalive_connections=1, keepalive_expiry=15)
    transport = httpx2.HTTPTransport(
        verify=context, trust_env=False, limits=limits, socket_options=_KEEP_ALIVE
    )
    headers = {"User-Agent": "podwired"}
    return httpx2.Client(
        base_url=config.cluster.server,
        auth=auth,
        transport=transport,
        timeout=timeout,
        headers=headers,
        trust_env=False,
    )
