"""The etcd source: nodes of a cluster without Kubernetes, and the subnets that they lease there."""

from __future__ import annotations

from pathlib import Path

from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.sources.remote import Client, SourceError

_PACKAGES = ("etcd3gw", "requests", "urllib3")


def open_client(settings: EtcdSettings, *, node: str, data_dir: Path, log: Log) -> Client:
    """What speaks to etcd for a node; nothing is connected yet. Raises SourceError."""
    try:
        from daemon.sources.etcd.client import EtcdClient
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        why = f"source.etcd needs the Python package {package}: pip install 'podwire[etcd]'"
        raise SourceError(why) from error
    return EtcdClient(settings, node=node, data_dir=data_dir, log=log)
