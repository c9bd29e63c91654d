"""The source that the configuration names."""

from __future__ import annotations

from daemon.config.paths import LAST_KNOWN
from daemon.config.schema import EtcdSettings, KubernetesSettings, Settings, StaticSettings
from daemon.log import Log
from daemon.model import Source
from daemon.sources.remote import Client, RemoteSource
from daemon.sources.static import StaticSource


def open_source(settings: Settings, log: Log) -> Source:
    """The source of a daemon that starts."""
    if isinstance(settings.source, StaticSettings):
        return StaticSource(settings.source.path)
    client = open_client(settings, settings.source, log)
    return RemoteSource(client, last_known=settings.data_dir / LAST_KNOWN, log=log)


def open_client(settings: Settings, source: KubernetesSettings | EtcdSettings, log: Log) -> Client:
    """What speaks to the engine of a source. Nothing is connected yet."""
    if isinstance(source, KubernetesSettings):
        from daemon.sources import kubernetes

        return kubernetes.open_client(
            source, node=settings.node, data_dir=settings.data_dir, log=log
        )
    from daemon.sources import etcd

    return etcd.open_client(source, node=settings.node, data_dir=settings.data_dir, log=log)
