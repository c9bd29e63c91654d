"""Where the cluster is described: `open_source` opens what podwired.yaml names.

A source gives whole snapshots (daemon.model.Source). `static` reads a file; `remote` runs a client
of Kubernetes or etcd in a thread. A client is imported only where it is used: each brings a library
of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.liveness.watchdog import Watch, unwatched

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.log import Log
    from daemon.model import Source
    from daemon.sources.remote import Client

_PACKAGES = ("httpx2",)


def open_source(settings: Settings, log: Log, watch: Watch = unwatched) -> Source:
    """The source of a daemon that starts. watch: declares what the watchdog watches."""
    from daemon.config import LAST_KNOWN
    from daemon.sources.remote import RemoteSource
    from daemon.sources.static import StaticSource

    if settings.source.static:
        return StaticSource(settings.source.static)
    client = open_client(settings, log)
    return RemoteSource(client, last_known=settings.data_dir / LAST_KNOWN, log=log, watch=watch)


def describe_entry(settings: Settings) -> str:
    """What this node's entry in the cluster is, how long it stays, and how it goes before."""
    source, node = settings.source, settings.node
    if source.etcd:
        seconds = source.etcd.lease_seconds
        until = f"until its lease ends, {seconds} s after the daemon renewed it last"
        return f"node {node} stays in etcd below {source.etcd.prefix} {until}"
    assert source.kubernetes is not None  # noqa: S101 - a file has no entry of the daemon's
    where = source.kubernetes.namespace
    sooner = f"`kubectl -n {where} delete nodenetwork {node}` deletes it before"
    return f"NodeNetwork {where}/{node} stays until its Node is deleted; {sooner}"


def open_client(settings: Settings, log: Log) -> Client:
    """The client of a source that is no file; it has not connected yet. Raises SourceError."""
    from daemon.sources.remote import SourceError

    source, name, folder = settings.source, settings.node, settings.data_dir
    kind = "kubernetes" if source.kubernetes else "etcd"
    try:
        if source.kubernetes:
            from daemon.sources.kubernetes.client import KubernetesClient

            return KubernetesClient(source.kubernetes, node=name, log=log)
        from daemon.sources.etcd.client import EtcdClient

        assert source.etcd is not None  # noqa: S101 - SourceSettings has exactly one of them
        return EtcdClient(source.etcd, node=name, data_dir=folder, log=log)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        why = f"needs the Python package {package}: pip install 'podwire[{kind}]'"
        raise SourceError(f"source.{kind} {why}") from error
